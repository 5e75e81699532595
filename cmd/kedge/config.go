package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/api/v1alpha1"
)

// The identity of the configuration file's format.
const (
	configAPIVersion = "cli.kedge.dev/v1alpha1"
	configKind       = "Config"
	// maxConfigBytes bounds every small file that the command line reads: the configuration, specs, keys.
	maxConfigBytes = 4 << 20
)

// config is what the command line remembers between calls.
type config struct {
	metav1.TypeMeta `json:",inline"`
	// Local makes --local the default. The first location that is made or added sets it.
	Local *bool `json:"local,omitempty"`
	// Namespace is that of the server's objects.
	Namespace string `json:"namespace,omitempty"`
	// AgeIdentityFiles are tried when a backup is read.
	AgeIdentityFiles []string `json:"ageIdentityFiles,omitempty"`
	// Locations are where backups are kept.
	Locations []v1alpha1.BackupStorageLocation `json:"locations,omitempty"`
}

// configPath is where the configuration is: --config, $KEDGE_CONFIG, or kedge/config.yaml in the user's configuration folder.
func (a *app) configPath() (string, error) {
	if a.flags.configFile != "" {
		return a.flags.configFile, nil
	}
	if path := a.env.Getenv("KEDGE_CONFIG"); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", usageError(fmt.Errorf("find the configuration file: %w", err), "name one with --config or KEDGE_CONFIG")
	}
	return filepath.Join(dir, "kedge", "config.yaml"), nil
}

// loadConfig reads the configuration; a missing file is an empty one.
func (a *app) loadConfig() (*config, error) {
	path, err := a.configPath()
	if err != nil {
		return nil, err
	}
	data, err := readSmallFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &config{}, nil
	}
	if err != nil {
		return nil, usageError(fmt.Errorf("read the configuration: %w", err), "")
	}
	return parseConfig(path, data)
}

func parseConfig(path string, data []byte) (*config, error) {
	var c config
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return nil, usageError(fmt.Errorf("read the configuration: %s: %w", path, yamlError(err)), "correct the file, or name another with --config")
	}
	if c.APIVersion != configAPIVersion || c.Kind != configKind {
		return nil, usageError(fmt.Errorf("read the configuration: %s: it is %q of %q, not %q of %q", path, c.Kind, c.APIVersion, configKind, configAPIVersion),
			"name Kedge's own configuration file with --config or KEDGE_CONFIG")
	}
	seen := map[string]bool{}
	for i, l := range c.Locations {
		if err := checkName("location", l.Name); err != nil {
			return nil, usageError(fmt.Errorf("read the configuration: %s: locations[%d].metadata.name: %w", path, i, err), "")
		}
		if seen[l.Name] {
			return nil, usageError(fmt.Errorf("read the configuration: %s: location %q stands there twice", path, l.Name), "remove one of them")
		}
		seen[l.Name] = true
	}
	return &c, nil
}

// updateConfig changes the configuration on disk as one step: it is read, handed to change, written beside the old file with
// mode 0600, and put in its place.
func (a *app) updateConfig(change func(*config) error) error {
	path, err := a.configPath()
	if err != nil {
		return err
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	if err := change(c); err != nil {
		return err
	}
	c.APIVersion, c.Kind = configAPIVersion, configKind
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	if err := replaceFile(path, data); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// replaceFile writes a file that only its owner can read, whole or not at all.
func replaceFile(path string, data []byte) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// readSmallFile reads a file that is expected to be small, and refuses one that is not, or that is no regular file.
func readSmallFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder", path)
	}
	return readSmall(path, f)
}

func readSmall(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxConfigBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("%s is larger than %d MiB", name, maxConfigBytes>>20)
	}
	return data, nil
}

// yamlError says what is wrong with a YAML or JSON document in the document's words.
func yamlError(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field := strings.ReplaceAll(wrong.Field, "Selection.", "") // an embedded struct, which the document does not show
		return fmt.Errorf("%s: it is a %s, not %s", orElse(field, "the document"), wrong.Value, kindName(wrong.Type.Kind()))
	}
	text := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "yaml: ", "json: ", "unmarshal errors:\n  ", "time: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return errors.New(text)
}

// kindName is what people call a Go kind.
func kindName(kind reflect.Kind) string {
	switch kind {
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct, reflect.Pointer:
		return "a map"
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	default:
		return "a number"
	}
}

// location finds a location by name; the empty name means the default one, or the only one.
func (c *config) location(name string) (*v1alpha1.BackupStorageLocation, error) {
	if name != "" {
		for i := range c.Locations {
			if c.Locations[i].Name == name {
				return &c.Locations[i], nil
			}
		}
		return nil, codeError(exitNotFound, fmt.Errorf("find the location: there is no location %q", name), c.knownLocations())
	}
	if len(c.Locations) == 1 {
		return &c.Locations[0], nil
	}
	i := slices.IndexFunc(c.Locations, func(l v1alpha1.BackupStorageLocation) bool { return l.Spec.Default })
	switch {
	case i >= 0:
		return &c.Locations[i], nil
	case len(c.Locations) == 0:
		return nil, codeError(exitNotFound, errors.New("find the location: none is configured"), c.knownLocations())
	}
	return nil, usageError(errors.New("find the location: there are several and none is the default"), "choose with --storage-location: "+c.names())
}

func (c *config) knownLocations() string {
	if len(c.Locations) == 0 {
		return `"kedge location create" makes one, "kedge location add" registers a bucket that holds backups already`
	}
	return "known locations: " + c.names()
}

func (c *config) names() string {
	names := make([]string, len(c.Locations))
	for i := range c.Locations {
		names[i] = c.Locations[i].Name
	}
	return someOf(names)
}
