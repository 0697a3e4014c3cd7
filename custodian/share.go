package custodian

import (
	"context"
	"net/http"
	"net/url"

	"chancery/internal/errs"
	"chancery/wall"
)

// ShareFile fetches a custodian's share as it lies in the cell: an age file
// (armored) that only the custodian's identity opens, for his own safe keeping.
// Whoever fetches it learns nothing. Errors: errs.NotFound, errs.Unavailable.
func (c *Client) ShareFile(ctx context.Context, custodian string) ([]byte, error) {
	const op = "custodian.ShareFile"
	if !wall.IsLabel(custodian) {
		return nil, errs.New(errs.Invalid, op, "the custodian's name is not a DNS label")
	}
	s, err := c.session()
	if err != nil {
		return nil, err
	}
	defer s.close()
	b, err := s.call(ctx, http.MethodGet, wall.PathSealShare+"?custodian="+url.QueryEscape(custodian), nil)
	return b, errs.Wrap(op, err)
}
