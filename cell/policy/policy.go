// Package policy decides what a known caller may do. Deny is the default, and
// the zero value of everything here denies.
package policy

import "context"

// Principal is who asks.
type Principal struct {
	// Project is the stable id of the caller's project. Empty is anonymous.
	Project string
	// User is the caller's name inside the project.
	User string
	// Administrator may act on the organization's resources (one role until
	// custody brings more).
	Administrator bool
}

// Request is one decision.
type Request struct {
	Principal Principal
	// Action is the AWS name, such as "s3:GetObject".
	Action string
	// Project owns the resource; Resource is its ARN, such as "arn:aws:s3:::bucket/key".
	Project, Resource string
}

// Decider decides. A nil error allows; anything else is errs.Denied.
type Decider interface {
	Decide(ctx context.Context, r Request) error
}
