package wall

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// messages are all types that cross SocketWall, or reach a cell as its Config. A
// new message must be added here, where it is looked at with suspicion.
var messages = []any{Config{}, Init{}, Initialized{}, Status{}, Probe{}, ProbeReport{}, Failure{}}

// TestNothingSecretCrosses walks every field of every message: only words,
// numbers, truth values and times, under names that are not those of secrets. The
// types of the custody messages, which are secret, must not be reachable.
func TestNothingSecretCrosses(t *testing.T) {
	// Initialized.Shares are age files: ciphertext to the custodians.
	allowed := map[string]bool{"Initialized.Shares": true, "Status.SharesGiven": true, "Status.RootKeyMemory": true}
	suspicious := []string{"secret", "token", "password", "private", "plain", "key", "share", "credential", "payload", "commitment"}
	seen := map[reflect.Type]bool{}
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		switch typ.Kind() {
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
		case reflect.Slice:
			if typ.Elem().Kind() == reflect.Uint8 {
				t.Errorf("%s is raw bytes: nothing that is not readable at sight may cross", path)
			}
			walk(path, typ.Elem())
		case reflect.Map:
			walk(path, typ.Key())
			walk(path, typ.Elem())
		case reflect.Struct:
			if typ == reflect.TypeFor[time.Time]() || seen[typ] {
				return
			}
			if typ == reflect.TypeFor[SharePayload]() || typ == reflect.TypeFor[Bootstrap]() {
				t.Errorf("%s is a secret message of custody", path)
			}
			seen[typ] = true
			for i := range typ.NumField() {
				f := typ.Field(i)
				name := typ.Name() + "." + f.Name
				if !allowed[name] && slices.ContainsFunc(suspicious, func(s string) bool { return strings.Contains(strings.ToLower(f.Name), s) }) {
					t.Errorf("%s has the name of a secret", name)
				}
				walk(name, f.Type)
			}
		default:
			t.Errorf("%s is a %s: it could hold anything", path, typ.Kind())
		}
	}
	for _, m := range messages {
		walk(reflect.TypeOf(m).Name(), reflect.TypeOf(m))
	}
	if len(seen) < len(messages) {
		t.Errorf("walked %d types for %d messages", len(seen), len(messages))
	}
}

// TestSecretsDoNotPrint makes sure that the two secret messages hide themselves.
func TestSecretsDoNotPrint(t *testing.T) {
	for _, s := range []string{
		SharePayload{Share: []byte("hidden-share")}.String(), SharePayload{Share: []byte("hidden-share")}.GoString(),
		Bootstrap{Token: "hidden-token"}.String(), Bootstrap{Token: "hidden-token"}.GoString(),
	} {
		if strings.Contains(s, "hidden-") {
			t.Errorf("%q tells a secret", s)
		}
	}
}
