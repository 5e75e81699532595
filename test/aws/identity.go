package aws

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The Security Token Service: the query protocol of AWS, whose results are one level deeper than EC2's ("AWS STS API Reference").

const stsNamespace = "https://sts.amazonaws.com/doc/2011-06-15/"

func tokenOperation(in *call) bool {
	form, err := url.ParseQuery(string(in.body))
	if err != nil || in.Method != http.MethodPost {
		return false
	}
	in.form, in.op = form, form.Get("Action")
	return in.op == "GetCallerIdentity" || in.op == "AssumeRole"
}

func stsAnswer(in *call, result any) *answer {
	var inner strings.Builder
	if err := xml.NewEncoder(&inner).EncodeElement(result, xml.StartElement{Name: xml.Name{Local: in.op + "Result"}}); err != nil {
		panic(err) // a shape of ours that XML cannot hold
	}
	text := fmt.Sprintf("<%[1]sResponse xmlns=%[2]q>%[3]s<ResponseMetadata><RequestId>%[4]s</RequestId></ResponseMetadata></%[1]sResponse>", in.op, stsNamespace, inner.String(), in.id)
	return &answer{status: http.StatusOK, header: http.Header{"Content-Type": {"text/xml"}}, body: []byte(text)}
}

func refuseToken(in *call, e *apiError) *answer {
	return queryAnswer(e.status, "ErrorResponse", struct {
		Type    string `xml:"Error>Type"`
		Code    string `xml:"Error>Code"`
		Message string `xml:"Error>Message"`
		ID      string `xml:"RequestId"`
	}{"Sender", e.code, e.message, in.id})
}

// CreateRole makes a role that the home account may assume, with the external ID unless that is empty, and gives its ARN.
func (c *Cloud) CreateRole(name, externalID string) string {
	return c.CreateRoleIn(HomeAccount, name, externalID)
}

// CreateRoleIn makes such a role in another account.
func (c *Cloud) CreateRoleIn(account, name, externalID string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	arn := fmt.Sprintf("arn:aws:iam::%s:role/%s", account, name)
	c.roles[arn] = externalID
	return arn
}

var roleARN = regexp.MustCompile(`^arn:aws:iam::(\d{12}):role/(.+)$`)

func (c *Cloud) performToken(in *call) (*answer, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.op == "GetCallerIdentity" {
		return stsAnswer(in, struct{ Arn, UserId, Account string }{
			fmt.Sprintf("arn:aws:iam::%s:user/test", in.account), "AIDATEST", in.account,
		}), nil
	}
	role := in.text("RoleArn")
	found := roleARN.FindStringSubmatch(role)
	externalID, ok := c.roles[role]
	seconds, given := in.number("DurationSeconds")
	switch {
	case found == nil || in.text("RoleSessionName") == "":
		return nil, refuse("ValidationError", "A role's ARN and a session name are needed.")
	case given && (seconds < 900 || seconds > 43200):
		return nil, refuse("ValidationError", "DurationSeconds must be 900 to 43200.")
	case !ok || externalID != "" && externalID != in.text("ExternalId"):
		return nil, &apiError{http.StatusForbidden, "AccessDenied", "", fmt.Sprintf("User is not authorized to perform: sts:AssumeRole on resource: %s", role)}
	}
	if !given {
		seconds = 3600
	}
	c.nextID++
	accessKey := fmt.Sprintf("ASIA%012X", c.nextID)
	c.accounts[accessKey] = found[1]
	type credentials struct{ AccessKeyId, SecretAccessKey, SessionToken, Expiration string }
	type user struct{ AssumedRoleId, Arn string }
	return stsAnswer(in, struct {
		Credentials     credentials
		AssumedRoleUser user
	}{
		credentials{accessKey, "secret-of-" + accessKey, "session-of-" + accessKey, stamp(in.now.Add(time.Duration(seconds) * time.Second))},
		user{"AROATEST:" + in.text("RoleSessionName"), fmt.Sprintf("arn:aws:sts::%s:assumed-role/%s/%s", found[1], found[2], in.text("RoleSessionName"))},
	}), nil
}

// The Key Management Service: JSON 1.1 ("AWS KMS API Reference"). Its ciphertexts are AES-GCM under a key made of the key's ARN, bound to the
// encryption context.

func keyOperation(in *call) bool {
	op, ok := strings.CutPrefix(in.Header.Get("X-Amz-Target"), "TrentService.")
	in.op = op
	return ok && (op == "DescribeKey" || op == "Encrypt" || op == "Decrypt")
}

func refuseKey(_ *call, e *apiError) *answer {
	out := jsonAnswer(e.status, map[string]string{"__type": e.code, "message": e.message})
	out.header.Set("Content-Type", "application/x-amz-json-1.1")
	return out
}

type keyRequest struct {
	KeyID             string `json:"KeyId"`
	Plaintext         []byte
	CiphertextBlob    []byte
	EncryptionContext map[string]string
}

func (c *Cloud) performKey(in *call) (*answer, *apiError) {
	var req keyRequest
	if err := json.Unmarshal(in.body, &req); err != nil {
		return nil, refuse("SerializationException", "The body is no JSON.")
	}
	c.mu.Lock()
	arn, ok := c.findKey(in.region, in.account, req.KeyID)
	c.mu.Unlock()
	if req.KeyID != "" && !ok {
		return nil, refuse("NotFoundException", "Key '%s' does not exist", req.KeyID)
	}
	var out any
	var refused *apiError
	switch in.op {
	case "DescribeKey":
		out = map[string]any{"KeyMetadata": map[string]any{
			"KeyId": arn[strings.LastIndexByte(arn, '/')+1:], "Arn": arn, "AWSAccountId": in.account, "Enabled": true, "KeyState": "Enabled", "KeyUsage": "ENCRYPT_DECRYPT",
			"KeySpec": "SYMMETRIC_DEFAULT", "KeyManager": "CUSTOMER", "EncryptionAlgorithms": []string{"SYMMETRIC_DEFAULT"}, "CreationDate": float64(in.now.Unix()),
		}}
	case "Encrypt":
		out, refused = encrypt(arn, req)
	default:
		out, refused = decrypt(arn, req)
	}
	if refused != nil {
		return nil, refused
	}
	answered := jsonAnswer(http.StatusOK, out)
	answered.header.Set("Content-Type", "application/x-amz-json-1.1")
	return answered, nil
}

func encrypt(arn string, req keyRequest) (any, *apiError) {
	if len(req.Plaintext) == 0 || len(req.Plaintext) > 4096 {
		return nil, refuse("ValidationException", "The plaintext must have 1 to 4096 bytes.")
	}
	aead := aeadOf(arn)
	sum := sha256.Sum256(append(contextBytes(req.EncryptionContext), req.Plaintext...))
	nonce := sum[:aead.NonceSize()]
	sealed := aead.Seal(slices.Clone(nonce), nonce, req.Plaintext, contextBytes(req.EncryptionContext))
	blob := base64.StdEncoding.EncodeToString(append([]byte(arn+"\n"), sealed...))
	return map[string]any{"CiphertextBlob": blob, "KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, nil
}

func decrypt(arn string, req keyRequest) (any, *apiError) {
	of, sealed, ok := strings.Cut(string(req.CiphertextBlob), "\n")
	if !ok {
		return nil, refuse("InvalidCiphertextException", "")
	}
	if req.KeyID != "" && of != arn {
		return nil, refuse("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	aead := aeadOf(of)
	if len(sealed) < aead.NonceSize() {
		return nil, refuse("InvalidCiphertextException", "")
	}
	plaintext, err := aead.Open(nil, []byte(sealed[:aead.NonceSize()]), []byte(sealed[aead.NonceSize():]), contextBytes(req.EncryptionContext))
	if err != nil {
		return nil, refuse("InvalidCiphertextException", "")
	}
	return map[string]any{"Plaintext": plaintext, "KeyId": of, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, nil
}

func aeadOf(arn string) cipher.AEAD {
	sum := sha256.Sum256([]byte("key material of " + arn))
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// contextBytes are an encryption context in one order.
func contextBytes(context map[string]string) []byte {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(context)) {
		fmt.Fprintf(&text, "%q=%q\n", name, context[name])
	}
	return []byte(text.String())
}
