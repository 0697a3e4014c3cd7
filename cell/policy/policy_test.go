package policy

import (
	"testing"

	"chancery/internal/errs"
)

func TestFirstStep(t *testing.T) {
	own := Principal{Project: "p1", User: "ann"}
	admin := Principal{User: "administrator", Administrator: true}
	const object = "arn:aws:s3:::bucket/key"
	tests := []struct {
		name  string
		r     Request
		allow bool
	}{
		{"zero", Request{}, false},
		{"own object", Request{own, "s3:GetObject", "p1", object}, true},
		{"own delete", Request{own, "s3:DeleteBucket", "p1", "arn:aws:s3:::bucket"}, true},
		{"own list", Request{own, "s3:ListAllMyBuckets", "p1", "arn:aws:s3:::*"}, true},
		{"other project", Request{own, "s3:GetObject", "p2", object}, false},
		{"prefix of own project", Request{own, "s3:GetObject", "p", object}, false},
		{"longer project", Request{own, "s3:GetObject", "p11", object}, false},
		{"case of project", Request{own, "s3:GetObject", "P1", object}, false},
		{"no owner", Request{own, "s3:GetObject", "", object}, false},
		{"anonymous", Request{Principal{}, "s3:GetObject", "p1", object}, false},
		{"anonymous, no owner", Request{Principal{}, "s3:GetObject", "", object}, false},
		{"no user", Request{Principal{Project: "p1"}, "s3:GetObject", "p1", object}, false},
		{"no action", Request{own, "", "p1", object}, false},
		{"service alone", Request{own, "s3:", "p1", object}, false},
		{"unknown service", Request{own, "iam:CreateUser", "p1", object}, false},
		{"case of service", Request{own, "S3:GetObject", "p1", object}, false},
		{"no resource", Request{own, "s3:GetObject", "p1", ""}, false},
		{"key administers", Request{own, "chancery:CreateProject", "p1", "projects/x"}, false},
		{"administrator administers", Request{admin, "chancery:CreateProject", "", "projects/x"}, true},
		{"administrator reads objects", Request{admin, "s3:GetObject", "p1", object}, false},
		{"administrator without a name", Request{Principal{Administrator: true}, "chancery:CreateProject", "", "projects/x"}, false},
		{"administrator, no action", Request{admin, "", "", "projects/x"}, false},
		{"administrator with a project's key", Request{Principal{Project: "p1", User: "a", Administrator: true}, "s3:GetObject", "p2", object}, false},
	}
	for _, test := range tests {
		err := New().Decide(t.Context(), test.r)
		if (err == nil) != test.allow {
			t.Errorf("%s: %v, want allowed %v", test.name, err, test.allow)
		}
		if err != nil && (errs.KindOf(err) != errs.Denied || errs.CodeOf(err) != "AccessDenied") {
			t.Errorf("%s: kind of %v", test.name, err)
		}
		if (firstStep{}).Decide(t.Context(), test.r) == nil {
			t.Errorf("%s: the zero Decider allows", test.name)
		}
	}
}
