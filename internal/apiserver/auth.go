package apiserver

import (
	"context"
	"net/http"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// openPath tells whether a path is served to anybody: health and version only.
func openPath(path string) bool {
	switch path {
	case "/healthz", "/livez", "/readyz", "/version", "/version/":
		return true
	}
	return false
}

// authenticate is the request authenticator: a bearer token that the caller
// knows, or nobody on the open paths. Everything else is refused.
func (o Options) authenticate() authenticator.Request {
	tokens := bearertoken.New(authenticator.TokenFunc(func(ctx context.Context, token string) (*authenticator.Response, bool, error) {
		if o.Authenticate == nil || token == "" {
			return nil, false, nil
		}
		name, groups, ok := o.Authenticate(ctx, token)
		if !ok || name == "" || strings.HasPrefix(name, "system:") {
			return nil, false, nil
		}
		for _, g := range groups {
			if strings.HasPrefix(g, "system:") {
				return nil, false, nil // only the server itself is of the system
			}
		}
		return &authenticator.Response{User: &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}}, true, nil
	}))
	return authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		if resp, ok, err := tokens.AuthenticateRequest(r); ok {
			return resp, ok, err
		}
		// A wrong token is no error here, though it is one to the library: it would
		// write a line into the log for each, which anybody could fill.
		if r.Header.Get("Authorization") == "" && openPath(r.URL.Path) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}}, true, nil
		}
		return nil, false, nil
	})
}

// authorize is the authorizer: the server's own clients, the open paths, and
// then whatever the caller allows.
func (o Options) authorize() authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		u := a.GetUser()
		switch {
		case u == nil:
			return authorizer.DecisionDeny, "no user", nil
		case u.GetName() == user.APIServerUser:
			// Without this the server's own informers never fill, and say nothing.
			return authorizer.DecisionAllow, "", nil
		case !a.IsResourceRequest() && openPath(a.GetPath()) && a.IsReadOnly():
			return authorizer.DecisionAllow, "", nil
		case u.GetName() != user.Anonymous && o.Authorize != nil && o.Authorize(ctx, a):
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionDeny, "not allowed for this user", nil
	})
}

// Administrators allows the members of one group everything, and nobody else anything.
func Administrators(group string) func(context.Context, authorizer.Attributes) bool {
	return func(_ context.Context, a authorizer.Attributes) bool {
		// Nobody becomes somebody else: "as" would go around the record of who did what.
		if a.GetVerb() == "impersonate" || a.GetUser() == nil || group == "" {
			return false
		}
		for _, g := range a.GetUser().GetGroups() {
			if g == group {
				return true
			}
		}
		return false
	}
}
