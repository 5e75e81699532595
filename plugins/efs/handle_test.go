package efs

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestParseHandle has every form that the driver documents.
func TestParseHandle(t *testing.T) {
	const fs, ap = "fs-0123456789abcdef0", "fsap-0fedcba9876543210"
	for text, want := range map[string]Handle{
		fs:                        {FileSystem: fs},
		"fs-12345678":             {FileSystem: "fs-12345678"},
		fs + "::" + ap:            {FileSystem: fs, AccessPoint: ap},
		fs + ":/a/b":              {FileSystem: fs, Folder: "/a/b"},
		fs + ":/a/b:" + ap:        {FileSystem: fs, Folder: "/a/b", AccessPoint: ap},
		"efs:" + fs:               {prefix: "efs:", FileSystem: fs},
		"efs:" + fs + "::" + ap:   {prefix: "efs:", FileSystem: fs, AccessPoint: ap},
		"efs:" + fs + ":/a:" + ap: {prefix: "efs:", FileSystem: fs, Folder: "/a", AccessPoint: ap},
	} {
		got, err := ParseHandle(text)
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
		if got.String() != text {
			t.Errorf("%q is written as %q", text, got)
		}
	}
	for _, text := range []string{"", "vol-0123456789abcdef0", "s3files:" + fs, fs + "::" + fs, fs + "::" + ap + ":x", "fs-", "FS-12345678", "efs:", "efs:efs:" + fs} {
		if got, err := ParseHandle(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func FuzzParseHandle(f *testing.F) {
	for _, seed := range []string{"fs-0123456789abcdef0::fsap-0fedcba9876543210", "efs:fs-12345678:/a", ":::", "fs-12345678:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := ParseHandle(text)
		if err != nil {
			return
		}
		if again, err := ParseHandle(h.String()); err != nil || again != h {
			t.Errorf("%q is %+v, which is written as %q and read as %+v, %v", text, h, h, again, err)
		}
	})
}

func TestHandleOf(t *testing.T) {
	volume := func(driver, handle string) *corev1.PersistentVolume {
		var pv corev1.PersistentVolume
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle}
		return &pv
	}
	for _, c := range []struct {
		pv   *corev1.PersistentVolume
		want bool
	}{
		{volume(Driver, "fs-12345678"), true},
		{volume("ebs.csi.aws.com", "fs-12345678"), false},
		{volume(Driver, "s3files:fs-12345678"), false},
		{&corev1.PersistentVolume{}, false},
	} {
		if _, ok := HandleOf(c.pv); ok != c.want {
			t.Errorf("%+v is one of EFS: %v", c.pv.Spec.CSI, ok)
		}
	}
}
