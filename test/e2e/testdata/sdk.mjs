// Speaks to S3 as programs in JavaScript do: the current SDK with its defaults.
// Arguments: endpoint, bucket. Credentials and CA come from the environment.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  S3Client, CreateBucketCommand, PutObjectCommand, GetObjectCommand, HeadObjectCommand, ListObjectsV2Command,
  DeleteObjectCommand, DeleteObjectsCommand, DeleteBucketCommand, CreateMultipartUploadCommand, UploadPartCommand,
  CompleteMultipartUploadCommand, CopyObjectCommand,
} from "@aws-sdk/client-s3";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const [endpoint, Bucket] = process.argv.slice(2);
const s3 = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true });
const body = async (Key) => Buffer.from(await (await s3.send(new GetObjectCommand({ Bucket, Key }))).Body.transformToByteArray());

await s3.send(new CreateBucketCommand({ Bucket }));
for (const [Key, size] of [["empty", 0], ["small", 100], ["dir/é +%2F 🦉", 40_000], ["large", 3_000_000]]) {
  const data = randomBytes(size);
  await s3.send(new PutObjectCommand({ Bucket, Key, Body: data, Metadata: { colour: "blue" }, ContentType: "text/x-test" }));
  assert.deepEqual(await body(Key), data, Key);
  const head = await s3.send(new HeadObjectCommand({ Bucket, Key, ChecksumMode: "ENABLED" }));
  assert.equal(head.ContentLength, size);
  assert.equal(head.Metadata.colour, "blue");
  assert.ok(head.ChecksumCRC32, "the SDK's default checksum is kept");
}
const Key = "parts";
const parts = [randomBytes(5 << 20), randomBytes(1234)];
const { UploadId } = await s3.send(new CreateMultipartUploadCommand({ Bucket, Key, ChecksumAlgorithm: "CRC32" }));
const done = [];
for (const [i, Body] of parts.entries()) {
  const { ETag, ChecksumCRC32 } = await s3.send(new UploadPartCommand({ Bucket, Key, UploadId, PartNumber: i + 1, Body }));
  done.push({ PartNumber: i + 1, ETag, ChecksumCRC32 });
}
await s3.send(new CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts: done } }));
assert.deepEqual(await body(Key), Buffer.concat(parts), "multipart");
await s3.send(new CopyObjectCommand({ Bucket, Key: "copy", CopySource: `${Bucket}/${Key}` }));
assert.equal((await body("copy")).length, (5 << 20) + 1234);

// By default this SDK signs the checksum of an empty body into the link, which S3
// refuses for any other body.
const linker = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, requestChecksumCalculation: "WHEN_REQUIRED" });
const put = await getSignedUrl(linker, new PutObjectCommand({ Bucket, Key: "signed" }), { expiresIn: 60 });
const sent = await fetch(put, { method: "PUT", body: "by a link" });
assert.equal(sent.status, 200, `${put}\n${await sent.text()}`);
const get = await getSignedUrl(s3, new GetObjectCommand({ Bucket, Key: "signed" }), { expiresIn: 60 });
assert.equal(await (await fetch(get)).text(), "by a link");
assert.equal((await fetch(get.replace(/Signature=../, "Signature=00"))).status, 403);

const keys = [];
for (let ContinuationToken; ;) {
  const page = await s3.send(new ListObjectsV2Command({ Bucket, MaxKeys: 2, ContinuationToken }));
  keys.push(...page.Contents.map((o) => o.Key));
  if (!page.IsTruncated) break;
  ContinuationToken = page.NextContinuationToken;
}
assert.deepEqual(keys, ["copy", "dir/é +%2F 🦉", "empty", "large", "parts", "signed", "small"]);
await assert.rejects(s3.send(new GetObjectCommand({ Bucket, Key: "none" })), { name: "NoSuchKey" });
await s3.send(new DeleteObjectCommand({ Bucket, Key: "small" }));
const gone = await s3.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects: keys.map((k) => ({ Key: k })) } }));
assert.equal(gone.Errors, undefined);
await s3.send(new DeleteBucketCommand({ Bucket }));
console.log("ok", keys.length);
