package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// startKMS starts a double of AWS KMS that knows one key, "alias/kedge". What it encrypts is the plaintext behind a mark; its
// cryptography is tested elsewhere, here it is whether the commands use a key at all.
func startKMS(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			KeyID          string `json:"KeyId"`
			Plaintext      []byte
			CiphertextBlob []byte
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		mark := []byte("wrapped:")
		out := map[string]any{"KeyId": "arn:aws:kms:eu-west-1:111122223333:key/11111111-2222-3333-4444-555555555555"}
		switch {
		case in.KeyID != "alias/kedge":
			w.WriteHeader(http.StatusBadRequest)
			out = map[string]any{"__type": "NotFoundException", "message": "Invalid keyId " + in.KeyID}
		case strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".Encrypt"):
			out["CiphertextBlob"] = append(mark, in.Plaintext...)
		case bytes.HasPrefix(in.CiphertextBlob, mark):
			out["Plaintext"] = in.CiphertextBlob[len(mark):]
		default:
			w.WriteHeader(http.StatusBadRequest)
			out = map[string]any{"__type": "InvalidCiphertextException"}
		}
		if err := json.NewEncoder(w).Encode(out); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}
