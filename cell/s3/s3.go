// Package s3 is the wire protocol of S3 on net/http: it parses a request, checks
// its signature, asks cell/policy, calls cell/objects and answers in S3's XML.
//
// It holds no meaning: what a bucket, a version or a part is, is decided in
// cell/objects. It must never hold a whole body in memory, never answer success
// for something that it did not do, never ignore a header that asks for something
// that is not built, and never put a secret, a name or a byte of a customer into
// a log. Where it departs from AWS is told in docs/divergences/s3.md.
package s3

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"chancery/cell/identity"
	"chancery/cell/objects"
	"chancery/cell/policy"
	"chancery/internal/errs"
)

// Options are what New needs. With Objects, Keys, Policy or Region missing the
// handler answers every request with ServiceUnavailable.
type Options struct {
	Objects objects.Service
	Keys    identity.Keys
	Policy  policy.Decider
	// Region is the region that credentials must be scoped to, and that buckets are in.
	Region string
	// OtherRegions are accepted in its place, for clients that say the default of
	// their library because nobody told them better.
	OtherRegions []string
	// Domains are the names (without port) under which BUCKET.DOMAIN is host style.
	Domains []string
	// Now is the clock for signatures; time.Now if nil.
	Now func() time.Time
	// Failed, if set, is told of every answer with a 5xx status and of every
	// transfer that was broken off. The error may name objects: what is logged of
	// it outside the wall is the caller's duty.
	Failed func(requestID string, err error)
	// IdleTimeout bounds how long a client may take to send or to accept the next
	// window of a body (bodyWindow bytes); 30 seconds if 0.
	IdleTimeout time.Duration
	// KeepAlive is the time after which a slow copy or completion begins its 200
	// answer and sends white space, as S3 does; 15 seconds if 0.
	KeepAlive time.Duration
}

// Handler serves S3. Make it with New.
type Handler struct {
	objects   objects.Service
	keys      identity.Keys
	policy    policy.Decider
	region    string
	others    []string
	domains   []string
	now       func() time.Time
	failed    func(string, error)
	idle      time.Duration
	keepAlive time.Duration
	signers   signingKeys
	ready     bool
}

// New returns the handler. It is safe for concurrent use and holds no goroutine of its own.
func New(o Options) http.Handler {
	h := &Handler{
		objects: o.Objects, keys: o.Keys, policy: o.Policy, region: o.Region, others: o.OtherRegions,
		now: o.Now, failed: o.Failed, idle: o.IdleTimeout, keepAlive: o.KeepAlive,
		ready: o.Objects != nil && o.Keys != nil && o.Policy != nil && o.Region != "",
	}
	if h.now == nil {
		h.now = time.Now
	}
	if h.failed == nil {
		h.failed = func(string, error) {}
	}
	if h.idle <= 0 {
		h.idle = 30 * time.Second
	}
	if h.keepAlive <= 0 {
		h.keepAlive = 15 * time.Second
	}
	for _, d := range o.Domains {
		h.domains = append(h.domains, strings.ToLower(strings.Trim(d, ".")))
	}
	return h
}

// isRegion tells whether a client that names a region means this one.
func (h *Handler) isRegion(name string) bool {
	return name == h.region || slices.Contains(h.others, name)
}

// maxHeaderFields bounds the header fields of one request; net/http bounds their bytes.
const maxHeaderFields = 256

// request is one request on its way through.
type request struct {
	h   *Handler
	w   http.ResponseWriter
	r   *http.Request
	ctl *http.ResponseController
	ctx context.Context
	// id and hostID are the answer's x-amz-request-id and x-amz-id-2.
	id, hostID string
	// rawPath is the path as sent; bucket and key are decoded from it (or from the host).
	rawPath     string
	bucket, key string
	query       query
	caller      caller
	// held is the bucket that was looked up, when the route has one.
	held objects.Bucket
	body *body
	// started tells that the status line is out: from here on a failure can only break the transfer.
	started bool
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// net/http sends no interim answer for an empty body (RFC 9110 section 10.1.1
	// lets it), but botocore before 1.30 then waits a minute before its next
	// request on the connection. It is asked for, so it is given.
	if r.ContentLength == 0 && strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		w.WriteHeader(http.StatusContinue)
	}
	q := &request{h: h, w: w, r: r, ctl: http.NewResponseController(w), ctx: r.Context()}
	q.id, q.hostID = newIDs()
	hd := w.Header()
	hd["Server"] = serverName
	hd["X-Amz-Request-Id"] = []string{q.id}
	hd["X-Amz-Id-2"] = []string{q.hostID}
	// A write deadline of an earlier request on this connection must not hit this one.
	q.ctl.SetWriteDeadline(time.Time{})

	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // a sentinel that is compared by identity
				panic(p)
			}
			q.fail(errs.New(errs.Internal, "s3", "a defect stopped the request"))
		}
	}()
	if err := q.serve(); err != nil {
		q.fail(err)
	}
}

var serverName = []string{"Chancery"}

// serve is the whole road of a request up to its operation.
func (q *request) serve() error {
	if !q.h.ready {
		return fail("ServiceUnavailable")
	}
	fields := 0
	for _, v := range q.r.Header {
		fields += len(v)
	}
	if fields > maxHeaderFields {
		return fail("RequestHeaderSectionTooLarge")
	}
	if err := q.parseTarget(); err != nil {
		return err
	}
	if q.r.Method == http.MethodOptions {
		return fail("AccessForbidden") // a browser's preflight is never signed, and no bucket has a CORS configuration
	}
	// Who asks comes before what is wrong with it: an unknown caller learns nothing.
	if err := q.authenticate(); err != nil {
		return err
	}
	rt, err := q.route()
	if err != nil {
		return err
	}
	if err := q.checkCommon(rt); err != nil {
		return err
	}
	if err := q.openBody(rt); err != nil {
		return err
	}
	if err := q.authorize(rt); err != nil {
		return err
	}
	return rt.serve(q)
}

// authorize looks the bucket up, if the operation is about one, and asks the policy.
func (q *request) authorize(rt *route) error {
	if rt.scope == scopeService || rt.newBucket {
		return q.decide(rt.action, q.caller.principal.Project, q.resource(rt))
	}
	b, err := q.h.objects.Bucket(q.ctx, q.bucket)
	if err != nil {
		return err
	}
	q.held = b
	if want := q.r.Header.Get("X-Amz-Expected-Bucket-Owner"); want != "" && want != b.ProjectID {
		return fail("AccessDenied")
	}
	if rt.action == "" {
		return nil // decided per key, inside
	}
	action := rt.action
	if v := q.query.get("versionId"); v != "" {
		switch action {
		case "s3:GetObject", "s3:GetObjectAttributes", "s3:DeleteObject", "s3:GetObjectAcl", "s3:GetObjectTagging":
			action = versionActions[action]
		}
	}
	return q.decide(action, b.ProjectID, q.resource(rt))
}

var versionActions = map[string]string{
	"s3:GetObject": "s3:GetObjectVersion", "s3:GetObjectAttributes": "s3:GetObjectVersionAttributes",
	"s3:DeleteObject": "s3:DeleteObjectVersion", "s3:GetObjectAcl": "s3:GetObjectVersionAcl",
	"s3:GetObjectTagging": "s3:GetObjectVersionTagging",
}

func (q *request) resource(rt *route) string {
	switch rt.scope {
	case scopeService:
		return "arn:aws:s3:::*"
	case scopeBucket:
		return "arn:aws:s3:::" + q.bucket
	default:
		return "arn:aws:s3:::" + q.bucket + "/" + q.key
	}
}

// decide asks the policy whether the caller may. Any error denies; only those
// that are not a decision (sealed, store failing) keep their own answer.
func (q *request) decide(action, project, resource string) error {
	err := q.h.policy.Decide(q.ctx, policy.Request{
		Principal: q.caller.principal, Action: action, Project: project, Resource: resource,
	})
	if err == nil {
		return nil
	}
	switch errs.KindOf(err) {
	case errs.Denied, errs.NotFound, errs.Unauthenticated, errs.Invalid:
		return fail("AccessDenied").because(err)
	}
	return err
}

// newIDs makes a request id and a host id. They are names for support, not
// secrets: the runtime's generator suffices.
func newIDs() (string, string) {
	const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var id [16]byte
	a, b := rand.Uint64(), rand.Uint64()
	for i := range id {
		id[i] = digits[a>>(4*i)&15|b>>i&1<<4]
	}
	var host [48]byte
	for i := 0; i < len(host); i += 8 {
		binary.LittleEndian.PutUint64(host[i:], rand.Uint64())
	}
	return string(id[:]), base64.StdEncoding.EncodeToString(host[:])
}

// isGone tells whether an error is only the client's leaving.
func isGone(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) && ctx.Err() != nil
}
