package aws

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The EC2 query protocol ("Query requests for the Amazon EC2 API"): a form in, XML out, lists as Name.1, Name.2.

const ec2Namespace = "http://ec2.amazonaws.com/doc/2016-11-15/"

type ec2Operation struct {
	perform    func(*Cloud, *call) (any, *apiError)
	parameters string
}

func queryOperation(in *call) bool {
	form, err := url.ParseQuery(string(in.body))
	if err != nil || in.Method != http.MethodPost {
		return false
	}
	in.form, in.op = form, form.Get("Action")
	_, ok := ec2Operations[in.op]
	return ok
}

// performEC2 runs an operation under the lock of everything.
func (c *Cloud) performEC2(in *call) (*answer, *apiError) {
	operation := ec2Operations[in.op]
	for name := range in.form {
		// What is not known must not pass for performed.
		top, _, _ := strings.Cut(name, ".")
		if !slices.Contains(strings.Fields(operation.parameters+" Action Version DryRun"), top) {
			return nil, &apiError{http.StatusNotImplemented, "UnsupportedParameter", "", fmt.Sprintf("the double of AWS does not know %s of %s", name, in.op)}
		}
	}
	if in.flag("DryRun") {
		return nil, &apiError{http.StatusPreconditionFailed, "DryRunOperation", "", "Request would have succeeded, but DryRun flag is set."}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out, refused := operation.perform(c, in)
	if refused != nil {
		return nil, refused
	}
	return queryAnswer(http.StatusOK, in.op+"Response", out), nil
}

func queryAnswer(status int, root string, out any) *answer {
	var text strings.Builder
	text.WriteString(xml.Header)
	start := xml.StartElement{Name: xml.Name{Local: root}}
	if root != "Response" {
		start.Attr = []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: ec2Namespace}}
	}
	if err := xml.NewEncoder(&text).EncodeElement(out, start); err != nil {
		panic(err) // a shape of ours that XML cannot hold
	}
	return &answer{status: status, header: http.Header{"Content-Type": {"text/xml;charset=UTF-8"}}, body: []byte(text.String())}
}

func refuseQuery(in *call, e *apiError) *answer {
	type failure struct {
		Code    string
		Message string
	}
	return queryAnswer(e.status, "Response", struct {
		Errors    []failure `xml:"Errors>Error"`
		RequestID string
	}{[]failure{{e.code, e.message}}, in.id})
}

// done is the answer of operations that give nothing back.
type done struct {
	Return bool `xml:"return"`
}

// text is a parameter.
func (in *call) text(name string) string { return in.form.Get(name) }

func (in *call) flag(name string) bool { return in.form.Get(name) == "true" }

// number is a parameter in digits; ok is false where there is none.
func (in *call) number(name string) (n int64, ok bool) {
	n, err := strconv.ParseInt(in.form.Get(name), 10, 64)
	return n, err == nil
}

// list is the values of Name.1, Name.2, ….
func (in *call) list(name string) (values []string) {
	for n := 1; in.form.Has(name + "." + strconv.Itoa(n)); n++ {
		values = append(values, in.form.Get(name+"."+strconv.Itoa(n)))
	}
	return values
}

// tagsAt is the tags Prefix.1.Key, Prefix.1.Value, …, checked ("Tag your Amazon EC2 resources": restrictions).
func (in *call) tagsAt(prefix string) (map[string]string, *apiError) {
	tags := map[string]string{}
	for n := 1; in.form.Has(prefix + "." + strconv.Itoa(n) + ".Key"); n++ {
		at := prefix + "." + strconv.Itoa(n)
		name, value := in.form.Get(at+".Key"), in.form.Get(at+".Value")
		if _, ok := tags[name]; ok {
			return nil, refuse("InvalidParameterValue", "Duplicate tag key '%s' specified.", name)
		}
		tags[name] = value
	}
	return tags, checkTags(tags)
}

const mostTags = 50

func checkTags(tags map[string]string) *apiError {
	if len(tags) > mostTags {
		return refuse("TagLimitExceeded", "The maximum number of tags for a resource is %d.", mostTags)
	}
	for name, value := range tags {
		switch {
		case name == "" || len([]rune(name)) > 127:
			return refuse("InvalidParameterValue", "Tag key must be 1 to 127 characters long.")
		case len([]rune(value)) > 255:
			return refuse("InvalidParameterValue", "Tag value exceeds the maximum length of 255 characters.")
		case strings.HasPrefix(name, "aws:"):
			return refuse("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use.")
		}
	}
	return nil
}

// newTags are the tags that a new resource of a kind ("snapshot") gets.
func (in *call) newTags(kind string) (map[string]string, *apiError) {
	tags := map[string]string{}
	for n := 1; in.form.Has("TagSpecification." + strconv.Itoa(n) + ".ResourceType"); n++ {
		at := "TagSpecification." + strconv.Itoa(n)
		if got := in.form.Get(at + ".ResourceType"); got != kind {
			return nil, refuse("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", got)
		}
		more, refused := in.tagsAt(at + ".Tag")
		if refused != nil {
			return nil, refused
		}
		tags = more
	}
	return tags, nil
}

// attributes are the values that a thing has for the filters that there are.
type attributes map[string][]string

func (a attributes) of(name string) ([]string, bool) {
	values, ok := a[name]
	return values, ok
}

// filter matches one thing by Filter.N.Name and Filter.N.Value.M. attributes gives the values that a thing has for a filter's name, and
// whether there is such a filter.
func (in *call) filter(tags map[string]string, attributes func(name string) ([]string, bool)) (bool, *apiError) {
	matches := true
	for n := 1; in.form.Has("Filter." + strconv.Itoa(n) + ".Name"); n++ {
		at := "Filter." + strconv.Itoa(n)
		name := in.form.Get(at + ".Name")
		var have []string
		if tag, ok := strings.CutPrefix(name, "tag:"); ok {
			if value, ok := tags[tag]; ok {
				have = []string{value}
			}
		} else if name == "tag-key" {
			for tag := range tags {
				have = append(have, tag)
			}
		} else {
			var ok bool
			if have, ok = attributes(name); !ok {
				return false, refuse("InvalidParameterValue", "The filter '%s' is invalid", name)
			}
		}
		wanted := in.list(at + ".Value")
		if len(wanted) == 0 {
			return false, refuse("InvalidParameterValue", "The filter '%s' has no values", name)
		}
		matches = matches && slices.ContainsFunc(have, func(value string) bool {
			return slices.ContainsFunc(wanted, func(pattern string) bool { return wildcard(pattern, value) })
		})
	}
	return matches, nil
}

// wildcard matches * and ?, as filters do ("List and filter using the CLI and API").
func wildcard(pattern, value string) bool {
	// The slash is an ordinary character here and a brace is too.
	escaped := strings.NewReplacer("[", `\[`, "/", "\x00").Replace(pattern)
	ok, err := path.Match(escaped, strings.ReplaceAll(value, "/", "\x00"))
	return err == nil && ok
}

// page cuts a list into pages of MaxResults; ids are ascending.
func page[T any](c *Cloud, in *call, all []T, id func(T) string) (items []T, next string, refused *apiError) {
	size, limited := in.number("MaxResults")
	if limited && (size < 5 || size > 1000) {
		return nil, "", refuse("InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value between 5 and 1000.", size)
	}
	if limited && c.opts.PageSize > 0 {
		size = min(size, int64(c.opts.PageSize)) // fewer than asked for is allowed
	}
	if token := in.text("NextToken"); token != "" {
		after, err := base64.StdEncoding.DecodeString(token)
		if err != nil || !strings.Contains(string(after), "-") {
			return nil, "", refuse("InvalidPaginationToken", "The token is not valid.")
		}
		all = slices.DeleteFunc(slices.Clone(all), func(item T) bool { return id(item) <= string(after) })
	}
	if limited && int64(len(all)) > size {
		all = all[:size]
		next = base64.StdEncoding.EncodeToString([]byte(id(all[size-1])))
	}
	return all, next, nil
}

type xmlTag struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

func xmlTags(tags map[string]string) (list []xmlTag) {
	names := make([]string, 0, len(tags))
	for name := range tags {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		list = append(list, xmlTag{name, tags[name]})
	}
	return list
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
