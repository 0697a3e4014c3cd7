package cell

import (
	"context"
	"net/http"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"

	"chancery/internal/errs"
)

// keptBack is how many bytes of a disk new data may not take: an eighth, at most
// 256 MiB. Deletions, and the store's own journal and flushes (16 MiB at a time),
// live on it.
func keptBack(total uint64) uint64 { return min(total/8, 256<<20) }

// room fails with errs.Exhausted if the disk has no room for size more bytes of new data.
func (c *Cell) room(size int64) error {
	const op = "cell.room"
	var st unix.Statfs_t
	if err := unix.Statfs(c.config.DataDir, &st); err != nil {
		return errs.WrapKind(errs.Unavailable, op, err)
	}
	block := uint64(st.Bsize)
	if st.Bavail*block < keptBack(st.Blocks*block)+uint64(max(size, 0)) {
		return errs.New(errs.Exhausted, op, "the disk is full; delete something, or ask the operator for more room")
	}
	return nil
}

// admit refuses what people make and change through the API while the disk is
// full. Deletions go on, and so do the reconcilers, which carry them out.
func (c *Cell) admit(_ context.Context, a admission.Attributes) error {
	switch {
	case a.GetOperation() != admission.Create && a.GetOperation() != admission.Update,
		a.GetUserInfo() != nil && a.GetUserInfo().GetName() == user.APIServerUser:
		return nil
	}
	err := c.room(0)
	if !errs.Is(err, errs.Exhausted) {
		return err
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: "InsufficientStorage",
		Message: "the disk of the organization is full; delete something, or ask the operator for more room",
	}}
}
