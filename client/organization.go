package client

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"chancery/api/v1alpha1"
	"chancery/internal/errs"
)

// Organization speaks to an organization's own API server, as its administrator.
type Organization struct{ kube kube.WithWatch }

// OpenOrganization connects to address (the front door); name is api.ORG.DOMAIN,
// caPEM and token come from the custodian's bootstrap credential.
func OpenOrganization(ctx context.Context, address, name, caPEM, token string) (*Organization, error) {
	config, err := server(address, name, caPEM, token)
	if err != nil {
		return nil, err
	}
	var o *Organization
	err = poll(ctx, "client.OpenOrganization", func() (bool, error) {
		c, err := open(config)
		if err != nil {
			return false, err
		}
		o = &Organization{c}
		// The server is up only when it answers for our own kinds.
		return true, wrap("client.OpenOrganization", c.List(ctx, &v1alpha1.ProjectList{}))
	})
	return o, err
}

// EnsureProject makes a project if there is none of the name, and waits until it is ready.
func (o *Organization) EnsureProject(ctx context.Context, name string) (*v1alpha1.Project, error) {
	const op = "client.EnsureProject"
	project := &v1alpha1.Project{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := wrap(op, o.kube.Create(ctx, project)); err != nil && !errs.Is(err, errs.Exists) {
		return nil, err
	}
	err := poll(ctx, op, func() (bool, error) {
		if err := o.kube.Get(ctx, kube.ObjectKey{Name: name}, project); err != nil {
			return false, wrap(op, err)
		}
		return true, ready("project", name, project.Status.Conditions)
	})
	return project, err
}

// EnsureBucket makes a bucket in a project if there is none of the name, and waits until it is ready.
func (o *Organization) EnsureBucket(ctx context.Context, project, name string) (*v1alpha1.Bucket, error) {
	const op = "client.EnsureBucket"
	key := kube.ObjectKey{Namespace: project, Name: name}
	bucket := &v1alpha1.Bucket{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name}}
	if err := wrap(op, o.kube.Create(ctx, bucket)); err != nil && !errs.Is(err, errs.Exists) {
		return nil, err
	}
	err := poll(ctx, op, func() (bool, error) {
		if err := o.kube.Get(ctx, key, bucket); err != nil {
			return false, wrap(op, err)
		}
		return true, ready("bucket", name, bucket.Status.Conditions)
	})
	return bucket, err
}

// EnsureAccessKey makes an access key in a project if there is none of the name,
// waits for its Secret, and returns the credential.
func (o *Organization) EnsureAccessKey(ctx context.Context, project, name, user string) (id, secret string, err error) {
	const op = "client.EnsureAccessKey"
	key := kube.ObjectKey{Namespace: project, Name: name}
	ak := &v1alpha1.AccessKey{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name}, Spec: v1alpha1.AccessKeySpec{User: user}}
	if err := wrap(op, o.kube.Create(ctx, ak)); err != nil && !errs.Is(err, errs.Exists) {
		return "", "", err
	}
	err = poll(ctx, op, func() (bool, error) {
		if err := o.kube.Get(ctx, key, ak); err != nil {
			return false, wrap(op, err)
		}
		if err := ready("access key", name, ak.Status.Conditions); err != nil {
			return false, err
		}
		var held corev1.Secret
		if err := o.kube.Get(ctx, kube.ObjectKey{Namespace: project, Name: ak.Status.SecretName}, &held); err != nil {
			return false, wrap(op, err)
		}
		id, secret = string(held.Data["AWS_ACCESS_KEY_ID"]), string(held.Data["AWS_SECRET_ACCESS_KEY"])
		if id == "" || secret == "" {
			return false, errs.New(errs.Invalid, op, "the Secret %s/%s holds no access key", project, ak.Status.SecretName)
		}
		return true, nil
	})
	return id, secret, err
}
