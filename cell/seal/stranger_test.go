package seal

import (
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A stranger has docs/formats/custody.md, age and Go's standard library, and
// nothing of ours. Whoever has to change what follows changes a format that is on
// disks, and in custodians' hands.

// order of the group ristretto255 (RFC 9496 section 4).
var order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

type strangersShare struct {
	Format, Organization, Ceremony, Custodian, Pin, CA string
	Index, Quorum, Shares                              int
	Share                                              []byte
	Commitments                                        [][]byte
}

// interpolate gives f(0), 32 bytes little-endian.
func interpolate(shares []strangersShare) []byte {
	sum := new(big.Int)
	for _, a := range shares {
		y := slices.Clone(a.Share)
		slices.Reverse(y)
		term := new(big.Int).SetBytes(y)
		for _, b := range shares {
			if b.Index != a.Index {
				d := new(big.Int).ModInverse(new(big.Int).Mod(big.NewInt(int64(b.Index-a.Index)), order), order)
				term.Mul(term, big.NewInt(int64(b.Index))).Mul(term, d).Mod(term, order)
			}
		}
		sum.Add(sum, term).Mod(sum, order)
	}
	s := sum.FillBytes(make([]byte, 32))
	slices.Reverse(s)
	return s
}

func strangerHKDF(t *testing.T, key, salt []byte, info string) []byte {
	k, err := hkdf.Key(sha256.New, key, salt, info, 32)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestStranger: whoever has seal.json and a quorum of identities gets the root key.
func TestStranger(t *testing.T) {
	c, _, _ := start(t, "health", 2, 3)
	raw, err := os.ReadFile(filepath.Join(c.o.Dir, "seal.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Format, Organization, Pin, CACertificate string
		Current                                  struct {
			ID, Commitments, Salt, Check, Bootstrap, MAC string
			Quorum                                       int
			Custodians                                   []struct{ Name, Recipient, Share string }
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	now := file.Current
	if file.Format != "chancery.seal.v1" || file.Organization != "health" || now.Quorum != 2 || len(now.Custodians) != 3 {
		t.Fatalf("%+v", file)
	}
	var shares []strangersShare
	for i, h := range now.Custodians {
		plain := decrypt(t, h.Share, identities()[i])
		var s strangersShare
		if err := json.Unmarshal(plain, &s); err != nil {
			t.Fatal(err)
		}
		b64 := base64.StdEncoding.EncodeToString
		want := fmt.Sprintf(`{"format":"chancery.share.v1","organization":"health","ceremony":"%s","custodian":"c%d","index":%d,"quorum":2,"shares":3,"pin":"%s","ca":"%s","share":"%s","commitments":["%s","%s"]}`,
			now.ID, i+1, i+1, file.Pin, s.CA, b64(s.Share), b64(s.Commitments[0]), b64(s.Commitments[1]))
		if string(plain) != want {
			t.Errorf("a share payload of another form:\n%s\nwant\n%s", plain, want)
		}
		shares = append(shares, s)
	}
	digest := sha256.Sum256([]byte("chancery/commitments/v1\x00health\x00" + now.ID + "\x00\x02\x03" + string(shares[0].Commitments[0]) + string(shares[0].Commitments[1])))
	if hex.EncodeToString(digest[:]) != now.Commitments {
		t.Error("the digest of the commitments")
	}
	salt, err := hex.DecodeString(now.Salt)
	if err != nil {
		t.Fatal(err)
	}
	root := strangerHKDF(t, interpolate(shares[1:]), salt, "chancery/root/v1/health")
	if other := strangerHKDF(t, interpolate([]strangersShare{shares[2], shares[0]}), salt, "chancery/root/v1/health"); string(other) != string(root) {
		t.Error("another quorum gives another root")
	}
	derived := func(purpose string) []byte { return strangerHKDF(t, root, salt, "chancery/derive/v1/health/"+purpose) }
	if hex.EncodeToString(derived("seal/check")[:16]) != now.Check {
		t.Error("the check value")
	}
	if string(derived("test")) != string(c.created) {
		t.Error("a derived key")
	}

	// The MAC is over the file without white space and with an empty mac.
	compact := regexp.MustCompile(`\n *`).ReplaceAllString(strings.TrimSpace(string(raw)), "")
	compact = strings.ReplaceAll(compact, `": `, `":`)
	m := hmac.New(sha256.New, derived("seal/state"))
	m.Write([]byte(strings.Replace(compact, `"mac":"`+now.MAC+`"`, `"mac":""`, 1)))
	if hex.EncodeToString(m.Sum(nil)) != now.MAC {
		t.Error("the MAC")
	}

	boot := string(decrypt(t, now.Bootstrap, identities()[1]))
	ca, err := json.Marshal(file.CACertificate)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`{"format":"chancery.bootstrap.v1","organization":"health","ceremony":"%s","pin":"%s","ca":"%s","user":"admin","token":"%s","caCertificate":%s}`,
		now.ID, file.Pin, shares[0].CA, testToken, ca); boot != want {
		t.Errorf("a bootstrap file of another form:\n%s\nwant\n%s", boot, want)
	}
	der, _ := pem.Decode([]byte(file.CACertificate))
	if sum := sha256.Sum256(der.Bytes); hex.EncodeToString(sum[:]) != shares[0].CA {
		t.Error("the digest of the authority")
	}

	// The pin is that of the sealed identity.
	identity, err := os.ReadFile(filepath.Join(c.o.Dir, "sealed-identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(identity)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.(*ecdsa.PrivateKey).Public())
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(spki); hex.EncodeToString(sum[:]) != file.Pin {
		t.Error("the pin")
	}
}
