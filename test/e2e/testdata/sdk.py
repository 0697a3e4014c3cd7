# Speaks to S3 as programs in Python do: boto3 with its defaults.
# Arguments: endpoint, bucket. Credentials and CA come from the environment.
import io, os, ssl, sys, urllib.error, urllib.request
import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, bucket = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint)
s3.create_bucket(Bucket=bucket)
keys = {"empty": 0, "small": 100, "dir/é +%2F 🦉": 40_000, "large": 3_000_000}
for key, size in keys.items():
    data = os.urandom(size)
    s3.put_object(Bucket=bucket, Key=key, Body=data, Metadata={"colour": "blue"})
    got = s3.get_object(Bucket=bucket, Key=key)
    assert got["Body"].read() == data, key
    assert got["Metadata"] == {"colour": "blue"}
    head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    assert head["ContentLength"] == size
    assert any(k.startswith("Checksum") for k in head), head
data = os.urandom((11 << 20) + 1234)
s3.upload_fileobj(io.BytesIO(data), bucket, "parts", Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
out = io.BytesIO()
s3.download_fileobj(bucket, "parts", out)
assert out.getvalue() == data
s3.copy({"Bucket": bucket, "Key": "parts"}, bucket, "copy")
context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
# For the region us-east-1 boto3 still makes links of signature version 2, unless told.
v4 = boto3.client("s3", endpoint_url=endpoint, config=Config(signature_version="s3v4"))
url = v4.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "copy"}, ExpiresIn=60)
try:
    assert urllib.request.urlopen(url, context=context).read() == data
except urllib.error.HTTPError as e:
    raise SystemExit(f"{url}\n{e.read()}")
listed = [o["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}) for o in page["Contents"]]
assert listed == sorted([*keys, "parts", "copy"], key=lambda k: k.encode()), listed
try:
    s3.get_object(Bucket=bucket, Key="none")
    raise SystemExit("an object that is not there was read")
except ClientError as e:
    assert e.response["Error"]["Code"] == "NoSuchKey", e
answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in listed]})
assert "Errors" not in answer, answer
s3.delete_bucket(Bucket=bucket)
print("ok", len(listed))
