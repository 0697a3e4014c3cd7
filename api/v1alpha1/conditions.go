package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GetConditions returns the conditions of the status, to be read and changed.
func (o *Organization) GetConditions() *[]metav1.Condition { return &o.Status.Conditions }

// GetConditions returns the conditions of the status, to be read and changed.
func (z *Zone) GetConditions() *[]metav1.Condition { return &z.Status.Conditions }

// GetConditions returns the conditions of the status, to be read and changed.
func (p *Project) GetConditions() *[]metav1.Condition { return &p.Status.Conditions }

// GetConditions returns the conditions of the status, to be read and changed.
func (b *Bucket) GetConditions() *[]metav1.Condition { return &b.Status.Conditions }

// GetConditions returns the conditions of the status, to be read and changed.
func (k *AccessKey) GetConditions() *[]metav1.Condition { return &k.Status.Conditions }

// GetConditions returns the conditions of the status, to be read and changed.
func (c *Custody) GetConditions() *[]metav1.Condition { return &c.Status.Conditions }
