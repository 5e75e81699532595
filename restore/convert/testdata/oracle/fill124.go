//go:build kube124

package main

import (
	fuzz "github.com/google/gofuzz"
	"k8s.io/apimachinery/pkg/runtime"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
)

func fill(f *fuzz.Fuzzer, obj runtime.Object) { f.Fuzz(obj) }
