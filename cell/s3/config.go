package s3

import (
	"chancery/cell/objects"
)

// config.go answers the sub-resources that tell how a bucket or an object is set
// up. Every answer is what is so today: the features are off, or have one state.

func init() {
	missing := func(code string) func(*request) error {
		return func(q *request) error { return fail(code).with("BucketName", q.bucket) }
	}
	fixed := func(root, inner string) func(*request) error {
		return func(q *request) error {
			x := newXML()
			x.root(root)
			x.b = append(x.b, inner...)
			x.close(root)
			return q.sendXML(x)
		}
	}
	for sub, r := range map[string]*route{
		"location":   {action: "s3:GetBucketLocation", serve: (*request).bucketLocation},
		"versioning": {action: "s3:GetBucketVersioning", serve: fixed("VersioningConfiguration", "")},
		"encryption": {action: "s3:GetEncryptionConfiguration", serve: (*request).bucketEncryption},
		"acl":        {action: "s3:GetBucketAcl", serve: (*request).acl},
		"ownershipControls": {action: "s3:GetBucketOwnershipControls", serve: fixed("OwnershipControls",
			"<Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule>")},
		"publicAccessBlock": {action: "s3:GetBucketPublicAccessBlock", serve: fixed("PublicAccessBlockConfiguration",
			"<BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls>"+
				"<BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets>")},
		"requestPayment": {action: "s3:GetBucketRequestPayment", serve: fixed("RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>")},
		"logging":        {action: "s3:GetBucketLogging", serve: fixed("BucketLoggingStatus", "")},
		"notification":   {action: "s3:GetBucketNotification", serve: fixed("NotificationConfiguration", "")},
		"accelerate":     {action: "s3:GetAccelerateConfiguration", serve: fixed("AccelerateConfiguration", "")},
		"policy":         {action: "s3:GetBucketPolicy", serve: missing("NoSuchBucketPolicy")},
		"policyStatus":   {action: "s3:GetBucketPolicyStatus", serve: missing("NoSuchBucketPolicy")},
		"tagging":        {action: "s3:GetBucketTagging", serve: missing("NoSuchTagSet")},
		"object-lock":    {action: "s3:GetBucketObjectLockConfiguration", serve: missing("ObjectLockConfigurationNotFoundError")},
		"lifecycle":      {action: "s3:GetLifecycleConfiguration", serve: missing("NoSuchLifecycleConfiguration")},
		"cors":           {action: "s3:GetBucketCORS", serve: missing("NoSuchCORSConfiguration")},
		"replication":    {action: "s3:GetReplicationConfiguration", serve: missing("ReplicationConfigurationNotFoundError")},
		"website":        {action: "s3:GetBucketWebsite", serve: missing("NoSuchWebsiteConfiguration")},
		"versions": {action: "s3:ListBucketVersions", serve: (*request).listVersions,
			params: []string{"prefix", "delimiter", "max-keys", "encoding-type", "key-marker", "version-id-marker"}},
	} {
		r.name, r.scope = "Get "+sub, scopeBucket
		routes[routeKey{scopeBucket, "GET", sub}] = r
	}
	noLock := func(*request) error { return failf("InvalidRequest", "Bucket is missing Object Lock Configuration") }
	version := []string{"versionId"}
	for k, r := range map[routeKey]*route{
		{scopeBucket, "PUT", "acl"}:        {action: "s3:PutBucketAcl", serve: (*request).putACL, body: bodyXML},
		{scopeObject, "PUT", "acl"}:        {action: "s3:PutObjectAcl", serve: (*request).putACL, body: bodyXML, params: version},
		{scopeObject, "GET", "acl"}:        {action: "s3:GetObjectAcl", serve: (*request).objectACL, params: version},
		{scopeObject, "GET", "tagging"}:    {action: "s3:GetObjectTagging", serve: (*request).objectTagging, params: version},
		{scopeObject, "GET", "retention"}:  {action: "s3:GetObjectRetention", serve: noLock, params: version},
		{scopeObject, "GET", "legal-hold"}: {action: "s3:GetObjectLegalHold", serve: noLock, params: version},
	} {
		r.name, r.scope = k.method+" "+k.sub, k.scope
		routes[k] = r
	}
}

func (q *request) bucketLocation() error {
	region := q.held.Region
	if region == "us-east-1" {
		region = "" // S3 user guide: the classic region has no constraint
	}
	x := newXML()
	x.root("LocationConstraint")
	x.b = appendEscaped(x.b, region)
	x.close("LocationConstraint")
	return q.sendXML(x)
}

func (q *request) bucketEncryption() error {
	x := newXML()
	x.root("ServerSideEncryptionConfiguration")
	x.open("Rule")
	x.open("ApplyServerSideEncryptionByDefault")
	x.text("SSEAlgorithm", "aws:kms")
	x.text("KMSMasterKeyID", q.held.KeyID)
	x.close("ApplyServerSideEncryptionByDefault")
	x.boolean("BucketKeyEnabled", true)
	x.close("Rule")
	x.close("ServerSideEncryptionConfiguration")
	return q.sendXML(x)
}

// acl answers with the one grant that there is: the owner's, of everything.
func (q *request) acl() error {
	x := newXML()
	x.root("AccessControlPolicy")
	q.owner(x)
	x.open("AccessControlList")
	x.open("Grant")
	x.b = append(x.b, `<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">`...)
	q.ownerFields(x)
	x.close("Grantee")
	x.text("Permission", "FULL_CONTROL")
	x.close("Grant")
	x.close("AccessControlList")
	x.close("AccessControlPolicy")
	return q.sendXML(x)
}

// putACL accepts the one ACL that there is, since s3cmd sends a copy's source's
// along; it changes nothing. Any other is refused as S3 refuses it when ACLs are off.
func (q *request) putACL() error {
	if q.key != "" {
		if err := q.exists(); err != nil {
			return err
		}
	}
	if err := checkACL(q.r.Header, false); err != nil {
		return err
	}
	doc, err := q.small(maxConfigXML)
	if err != nil {
		return err
	}
	switch canned := q.r.Header.Get("X-Amz-Acl") != ""; {
	case canned && len(doc) > 0:
		return fail("UnexpectedContent")
	case !canned && len(doc) == 0:
		return failf("MissingSecurityHeader", "Your request was missing a required header").with("MissingHeaderName", "x-amz-acl")
	case !canned:
		if err := checkACLDocument(doc, q.held.ProjectID); err != nil {
			return err
		}
	}
	return q.sendEmpty(200)
}

// checkACLDocument accepts exactly one grant: full control for the owner.
func checkACLDocument(doc []byte, owner string) error {
	n, err := parseXML(doc, "AccessControlPolicy")
	if err != nil {
		return err
	}
	grants := 0
	for _, k := range n.kids {
		switch k.name {
		case "Owner":
			if k.child("ID") != owner {
				return fail("AccessControlListNotSupported")
			}
		case "AccessControlList":
			for _, g := range k.kids {
				if g.name != "Grant" {
					return fail("MalformedXML")
				}
				id := ""
				for _, f := range g.kids {
					if f.name == "Grantee" {
						id = f.child("ID")
					}
				}
				if id != owner || g.child("Permission") != "FULL_CONTROL" {
					return fail("AccessControlListNotSupported")
				}
				grants++
			}
		default:
			return fail("MalformedXML")
		}
	}
	if grants == 0 {
		return fail("AccessControlListNotSupported") // not even the owner: that is not what is so
	}
	return nil
}

// exists fails unless the object of the request is there.
func (q *request) exists() error {
	in := objects.Get{Bucket: q.bucket, Key: q.key, VersionID: q.query.get("versionId")}
	obj, err := q.h.objects.Head(q.ctx, in)
	if err != nil {
		return q.readFailed(in, obj, err)
	}
	return nil
}

func (q *request) objectACL() error {
	if err := q.exists(); err != nil {
		return err
	}
	return q.acl()
}

func (q *request) objectTagging() error {
	if err := q.exists(); err != nil {
		return err
	}
	x := newXML()
	x.root("Tagging")
	x.open("TagSet")
	x.close("TagSet")
	x.close("Tagging")
	return q.sendXML(x)
}

// listVersions answers ListObjectVersions for a bucket that never had versioning:
// each object has the one version "null".
func (q *request) listVersions() error {
	limit, err := q.pageSize("max-keys")
	if err != nil {
		return err
	}
	n, err := q.namer()
	if err != nil {
		return err
	}
	marker, version, delimiter := q.query.get("key-marker"), q.query.get("version-id-marker"), q.query.get("delimiter")
	if version != "" && marker == "" {
		return invalidArgument("version-id-marker", version, "A version-id marker cannot be specified without a key marker.")
	}
	l, err := q.page(marker, limit)
	if err != nil {
		return err
	}
	x := newXML()
	x.root("ListVersionsResult")
	x.text("Name", q.bucket)
	n.text(x, "Prefix", q.query.get("prefix"))
	n.text(x, "KeyMarker", marker)
	x.text("VersionIdMarker", version)
	if l.Truncated {
		n.text(x, "NextKeyMarker", l.Next)
		x.text("NextVersionIdMarker", "null")
	}
	x.integer("MaxKeys", int64(limit))
	if delimiter != "" {
		n.text(x, "Delimiter", delimiter)
	}
	n.declare(x)
	x.boolean("IsTruncated", l.Truncated)
	for i := range l.Objects {
		o := &l.Objects[i]
		x.open("Version")
		n.text(x, "Key", o.Key)
		x.text("VersionId", "null")
		x.boolean("IsLatest", true)
		q.entryFields(x, o)
		q.owner(x)
		x.close("Version")
	}
	commonPrefixes(x, n, l.CommonPrefixes)
	x.close("ListVersionsResult")
	return q.sendXML(x)
}
