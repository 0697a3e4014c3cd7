package harness

import (
	"fmt"
	"net/url"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Minio returns a minio-go client of the zone's S3 endpoint, with the demonstration's access key.
func (z *Zone) Minio() (*minio.Client, error) {
	endpoint, err := url.Parse(z.Env[EndpointURL])
	if err != nil {
		return nil, fmt.Errorf("harness: %w", err)
	}
	if endpoint.Scheme != "https" {
		return nil, fmt.Errorf("harness: the endpoint %s is not https", endpoint)
	}
	client, err := z.HTTPClient()
	if err != nil {
		return nil, err
	}
	return minio.New(endpoint.Host, &minio.Options{
		Creds:     credentials.NewStaticV4(z.Env[AccessKeyID], z.Env[SecretKey], ""),
		Secure:    true,
		Transport: client.Transport,
		Region:    z.Env[Region],
	})
}
