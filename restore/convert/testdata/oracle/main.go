// Oracle prints what Kubernetes' own code makes of objects in other API versions, for the tests of restore/convert. It is a
// module of its own, so that Kubernetes' dependencies stay out of Kedge's. Build it for both versions in this folder:
//
//	go build -o ~/oracle136 .
//	go build -modfile=kube124.mod -tags kube124 -ldflags=-checklinkname=0 -o ~/oracle124 .
//
// and name the results in KEDGE_ORACLE_136 and KEDGE_ORACLE_124 when the tests run.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	k8sfuzz "k8s.io/kubernetes/pkg/api/testing"

	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/certificates/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/events/install"
	_ "k8s.io/kubernetes/pkg/apis/extensions/install"
	_ "k8s.io/kubernetes/pkg/apis/flowcontrol/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"
)

type pair struct {
	In   json.RawMessage `json:"in"`
	To   string          `json:"to"`
	Want json.RawMessage `json:"want,omitempty"`
	Err  string          `json:"err,omitempty"`
}

// encode writes obj in the version gv.
func encode(obj runtime.Object, gv schema.GroupVersion) ([]byte, error) {
	info, _ := runtime.SerializerInfoForMediaType(legacyscheme.Codecs.SupportedMediaTypes(), "application/json")
	return runtime.Encode(legacyscheme.Codecs.EncoderForVersion(info.Serializer, gv), obj)
}

// convert decodes with the defaults of the version in it, and encodes in the other.
func convert(raw []byte, gv schema.GroupVersion) ([]byte, error) {
	obj, err := runtime.Decode(legacyscheme.Codecs.UniversalDecoder(), raw)
	if err != nil {
		return nil, err
	}
	return encode(obj, gv)
}

func main() {
	n := flag.Int("n", 20, "random objects per kind")
	seed := flag.Int64("seed", 1, "seed")
	mode := flag.String("mode", "convert", "convert (lines of {in,to} on stdin) or generate (args: from-apiVersion Kind to-apiVersion)")
	flag.Parse()
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	enc := json.NewEncoder(out)
	if *mode == "convert" {
		dec := json.NewDecoder(bufio.NewReader(os.Stdin))
		for dec.More() {
			var p pair
			if err := dec.Decode(&p); err != nil {
				fmt.Fprintln(os.Stderr, "oracle: read pairs:", err)
				os.Exit(1)
			}
			gv, _ := schema.ParseGroupVersion(p.To)
			want, err := convert(p.In, gv)
			p.Want = want
			if err != nil {
				p.Err = err.Error()
			}
			enc.Encode(p)
		}
		return
	}
	gen(flag.Args(), *n, *seed, enc)
}

func gen(args []string, n int, seed int64, enc *json.Encoder) {
	codecs := serializer.NewCodecFactory(legacyscheme.Scheme)
	f := fuzzer.FuzzerFor(fuzzer.MergeFuzzerFuncs(k8sfuzz.FuzzerFuncs), rand.NewSource(seed), codecs)
	for _, a := range args {
		parts := strings.Split(a, ",")
		from, _ := schema.ParseGroupVersion(parts[0])
		to, _ := schema.ParseGroupVersion(parts[2])
		internalGroup := to.Group
		for i := 0; i < n; i++ {
			obj, err := legacyscheme.Scheme.New(schema.GroupVersionKind{Group: internalGroup, Version: runtime.APIVersionInternal, Kind: parts[1]})
			if err != nil {
				fmt.Fprintln(os.Stderr, a, err)
				break
			}
			fill(f, obj)
			obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
			in, err := encode(obj, from)
			if err != nil {
				enc.Encode(pair{To: parts[2], Err: "encode: " + err.Error()})
				continue
			}
			want, err := convert(in, to)
			p := pair{In: in, To: parts[2], Want: want}
			if err != nil {
				p.Err = err.Error()
			}
			enc.Encode(p)
		}
	}
}
