package aws

// limits are what a type of volume takes: GiB, IOPS, IOPS per GiB, MiB/s ("Request Parameters" of CreateVolume, and "Amazon EBS volume types").
type limits struct {
	smallest, largest int64
	iopsLeast         int64 // zero: iops cannot be given
	iopsMost          int64
	iopsPerGiB        int64
	iopsNeeded        bool
	throughputMost    int64 // zero: throughput cannot be given
}

var volumeTypes = map[string]limits{
	"gp2":      {smallest: 1, largest: 16384},
	"gp3":      {smallest: 1, largest: 65536, iopsLeast: 3000, iopsMost: 80000, iopsPerGiB: 500, throughputMost: 2000},
	"io1":      {smallest: 4, largest: 16384, iopsLeast: 100, iopsMost: 64000, iopsPerGiB: 50, iopsNeeded: true},
	"io2":      {smallest: 4, largest: 65536, iopsLeast: 100, iopsMost: 256000, iopsPerGiB: 1000, iopsNeeded: true},
	"st1":      {smallest: 125, largest: 16384},
	"sc1":      {smallest: 125, largest: 16384},
	"standard": {smallest: 1, largest: 1024},
}

// checkPerformance checks type, size, IOPS and throughput, and fills in what the service chooses by itself.
func (c *Cloud) checkPerformance(in *call, v *volume) *apiError {
	l, ok := volumeTypes[v.kind]
	if !ok {
		return refuse("InvalidParameterValue", "Value '%s' for parameter volumeType is invalid.", v.kind)
	}
	iops, iopsSet := in.number("Iops")
	throughput, throughputSet := in.number("Throughput")
	switch {
	case v.gib < l.smallest || v.gib > l.largest:
		return refuse("InvalidParameterValue", "Volume of %dGiB is out of range for type %s: %d to %dGiB", v.gib, v.kind, l.smallest, l.largest)
	case iopsSet && l.iopsMost == 0:
		return refuse("InvalidParameterCombination", "The parameter iops is not supported for %s volumes.", v.kind)
	case !iopsSet && l.iopsNeeded:
		return refuse("MissingParameter", "The parameter iops must be specified for %s volumes.", v.kind)
	case iopsSet && (iops < l.iopsLeast || iops > l.iopsMost):
		return refuse("InvalidParameterValue", "Volume iops of %d is out of range for type %s: %d to %d", iops, v.kind, l.iopsLeast, l.iopsMost)
	case iopsSet && iops > max(l.iopsPerGiB*v.gib, l.iopsLeast):
		return refuse("InvalidParameterCombination", "Iops to volume size ratio of %d:%d is too high; maximum is %d", iops, v.gib, l.iopsPerGiB)
	case throughputSet && l.throughputMost == 0:
		return refuse("InvalidParameterCombination", "The parameter throughput is not supported for %s volumes.", v.kind)
	case throughputSet && (throughput < 125 || throughput > l.throughputMost):
		return refuse("InvalidParameterValue", "Throughput of %d is out of range: 125 to %d", throughput, l.throughputMost)
	case v.multi && v.kind != "io1" && v.kind != "io2":
		return refuse("InvalidParameterCombination", "Multi-Attach is not supported for %s volumes.", v.kind)
	}
	v.iops, v.throughput = iops, throughput
	switch v.kind {
	case "gp3":
		if !iopsSet {
			v.iops = l.iopsLeast
		}
		if !throughputSet {
			v.throughput = 125
		}
		if v.throughput*4 > v.iops {
			return refuse("InvalidParameterCombination", "Throughput (MiBps) to iops ratio of %d:%d is too high; maximum is 0.25", v.throughput, v.iops)
		}
	case "gp2":
		v.iops = min(max(100, 3*v.gib), 16000)
	}
	return nil
}
