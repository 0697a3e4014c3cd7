package zone

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"

	"chancery/internal/errs"
	"chancery/internal/files"
)

// Endpoints are the addresses, host:port, that a running zone really listens on.
type Endpoints struct {
	S3       string `json:"s3"`
	API      string `json:"api"`
	Operator string `json:"operator"`
	// PID is the zone's process.
	PID int `json:"pid"`
}

func endpointsFile(dir string) string { return filepath.Join(dir, "endpoints.json") }

func saveEndpoints(dir string, e Endpoints) error {
	body, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return errs.Wrap("zone.saveEndpoints", err)
	}
	return files.WriteFile(files.OS(), endpointsFile(dir), append(body, '\n'))
}

// LoadEndpoints tells where the zone of a directory listens. errs.Unavailable if it does not run.
func LoadEndpoints(dir string) (Endpoints, error) {
	const op = "zone.LoadEndpoints"
	var e Endpoints
	body, err := os.ReadFile(endpointsFile(dir))
	if err == nil {
		err = json.Unmarshal(body, &e)
	}
	if err != nil || !running(e.PID) {
		settings, err := Load(dir)
		switch {
		case errs.Is(err, errs.NotFound):
			return Endpoints{}, err
		case err == nil && settings.Demonstration:
			return Endpoints{}, errs.New(errs.Unavailable, op, "the demonstration in %s does not run; start it with `chancery up --dir %s`", dir, dir)
		}
		return Endpoints{}, errs.New(errs.Unavailable, op, "the zone in %s does not run; start it with `chancery zone serve --dir %s`", dir, dir)
	}
	return e, nil
}

// running tells whether a process of that id exists, be it ours or not.
func running(pid int) bool {
	if pid <= 0 {
		return false
	}
	_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
	return err == nil
}
