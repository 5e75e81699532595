//go:build !kube124

package main

import (
	"k8s.io/apimachinery/pkg/runtime"
	_ "k8s.io/kubernetes/pkg/apis/resource/install"
	"sigs.k8s.io/randfill"
)

func fill(f *randfill.Filler, obj runtime.Object) { f.Fill(obj) }
