package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"syscall"

	"kedge.dev/kedge/backup"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/deploy/install"
	"kedge.dev/kedge/deploy/render"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/selection"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/volume/repository"
)

// rule recognizes errors of one kind: it gives their exit code and a remedy, or "" where their text has one already.
type rule func(error) (code int, hint string, ok bool)

// rules map the errors of the engines to exit codes. The first that recognizes an error decides.
var rules = []rule{
	is(archive.ErrHoldUnknown, exitRefused, "try again, or add --force to delete it all the same"),
	damageRule,
	is(archive.ErrBackupNotFound, exitNotFound, `"kedge backup get" lists the backups of a location`),
	is(archive.ErrItemNotFound, exitNotFound, `"kedge backup items" lists what a backup holds`),
	is(archive.ErrNotALocation, exitNotFound, `make it one with "kedge location create", or check bucket and prefix`),
	is(archive.ErrInitialized, exitRefused, `register it with "kedge location add"`),
	noKeyRule,
	is(archive.ErrKeyMismatch, exitRefused, "the bucket is not the one that was registered, or somebody replaced its key"),
	is(archive.ErrSignature, exitRefused, "name the signer's public key with --trusted-key-file, and do not use the backup where that does not help"),
	is(archive.ErrHeld, exitRefused, "add --force to delete it all the same"),
	is(archive.ErrDeleting, exitRefused, "finish the deletion with: kedge backup delete"),
	is(archive.ErrNewerFormat, exitRefused, "use a newer kedge"),
	is(archive.ErrTooLarge, exitRefused, ""),
	is(archive.ErrInvalid, exitUsage, ""),
	is(render.ErrValues, exitUsage, "docs/install.md has the values"),
	is(render.ErrRequired, exitUsage, "set it with --set, --values, or --image"),
	is(install.ErrForeign, exitRefused, "upgrade and uninstall it with what installed it (helm), or remove it with that first"),
	is(install.ErrInstalled, exitRefused, "change it with \"kedge upgrade\""),
	is(install.ErrNotInstalled, exitNotFound, "install it with \"kedge install\", or name its namespace with --namespace"),
	is(install.ErrNoNamespace, exitNotFound, "make it with \"kubectl create namespace\" (that of movers also needs a label and a Secret: docs/mover.md), or name another: movers.namespace, namespace.create"),
	is(install.ErrNotReady, exitFailed, "\"kubectl describe pods\" in its namespace tells more"),
	is(repository.ErrNoRepository, exitNotFound, "the location has no copies of volumes; check bucket and prefix"),
	is(repository.ErrNoPassword, exitRefused, "the password of the copies is below volumes.key/ in the location: put it back from a version or replica of the bucket"),
	is(repository.ErrWrongPassword, exitRefused, "the password of the copies is below volumes.key/ in the location: put it back from a version or replica of the bucket"),
	ambiguousRule,
	fieldRule,
	statusRule,
	is(kube.ErrUnreachable, exitUnreachable, "check the API server's address and the network; --kubeconfig and --context choose another cluster"),
	notKubernetesRule,
	is(kube.ErrRevisionGone, exitFailed, "try again; select less for one backup if it happens often"),
	is(errNoState, exitNotFound, `"kedge restore get" lists the known restores`),
	is(restore.ErrJournalMismatch, exitRefused, "resume it with the cluster that it was begun with (--kubeconfig, --context)"),
	is(syscall.EWOULDBLOCK, exitRefused, "wait for the other process, or end it"),
	is(backup.ErrNothingRead, exitRefused, "\"kedge doctor\" checks what the account may read"),
	storeRule,
	keyRule,
	is(plugins.ErrAccess, exitUnreachable, ""),
	is(plugins.ErrConfig, exitUsage, ""),
	is(plugins.ErrRetained, exitRefused, "wait until the retention ends"),
	is(plugins.ErrUnsupported, exitUsage, ""),
	is(context.DeadlineExceeded, exitUnreachable, ""),
}

func is(target error, code int, hint string) rule {
	return func(err error) (int, string, bool) { return code, hint, errors.Is(err, target) }
}

// damageRule: what is in the bucket is not what was written.
func damageRule(err error) (int, string, bool) {
	var damage *archive.DamageError
	if !errors.As(err, &damage) {
		return 0, "", false
	}
	hint := damage.Remedy
	if text := damage.Error(); hint == "" && strings.HasSuffix(text, ")") {
		hint = text[strings.LastIndex(text, " (")+2 : len(text)-1]
	}
	return exitRefused, hint, true
}

// noKeyRule: nothing at hand opens the location. What a key service said about it is the better remedy.
func noKeyRule(err error) (int, string, bool) {
	var key *plugins.KeyError
	if errors.As(err, &key) && key.Remedy != "" && errors.Is(err, archive.ErrNoKey) {
		return exitRefused, key.Remedy, true
	}
	return exitRefused, "give the identity file with --age-identity-file or KEDGE_AGE_IDENTITY_FILE, or see that IAM lets you use the KMS key", errors.Is(err, archive.ErrNoKey)
}

func ambiguousRule(err error) (int, string, bool) {
	var ambiguous *archive.AmbiguousError
	return exitUsage, "", errors.As(err, &ambiguous)
}

// fieldRule: a selection that contradicts itself.
func fieldRule(err error) (int, string, bool) {
	var field *selection.FieldError
	return exitUsage, "", errors.As(err, &field)
}

// statusRule: the API server answered, and what it said was no.
func statusRule(err error) (int, string, bool) {
	var status *kube.StatusError
	if !errors.As(err, &status) {
		return 0, "", false
	}
	switch status.Code {
	case http.StatusUnauthorized:
		return exitUnreachable, "the cluster did not accept the credentials of the kubeconfig; log in again, or choose another with --kubeconfig, --context or --user", true
	case http.StatusForbidden:
		return exitRefused, "grant the account what it lacks, or use another with --user or --context; \"kedge doctor\" lists what is missing", true
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusGatewayTimeout:
		return exitUnreachable, "", true
	}
	return exitFailed, "", true
}

// notKubernetesRule: what answered does not speak the Kubernetes API. Archives' bad JSON was recognized by a rule before.
func notKubernetesRule(err error) (int, string, bool) {
	var syntax *json.SyntaxError
	return exitUnreachable, "check that an API server is at the address that the kubeconfig names, and no login page or proxy", errors.As(err, &syntax) || errors.Is(err, rawjson.ErrSyntax)
}

// storeRule: the store refused or failed; it knows the remedy.
func storeRule(err error) (int, string, bool) {
	var store *plugins.StoreError
	if !errors.As(err, &store) {
		return 0, "", false
	}
	code := exitUnreachable
	switch {
	case errors.Is(store, plugins.ErrNotFound):
		code = exitNotFound
	case errors.Is(store, plugins.ErrConfig), errors.Is(store, plugins.ErrUnsupported), errors.Is(store, plugins.ErrInvalidKey):
		code = exitUsage
	case errors.Is(store, plugins.ErrRetained), errors.Is(store, plugins.ErrExists):
		code = exitRefused
	}
	return code, store.Remedy, true
}

// keyRule: a key service refused or failed; it knows the remedy.
func keyRule(err error) (int, string, bool) {
	var key *plugins.KeyError
	if !errors.As(err, &key) {
		return 0, "", false
	}
	code := exitUnreachable
	if errors.Is(key, plugins.ErrConfig) {
		code = exitUsage
	}
	return code, key.Remedy, true
}
