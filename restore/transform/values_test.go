package transform

import (
	"strings"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
)

func TestStorageClasses(t *testing.T) {
	p := compile(t, Options{Transforms: &v1alpha1.Transforms{StorageClasses: map[string]string{"gp2": "gp3", "slow": "gp3"}}})
	run(t, p, []example{
		{
			"a claim", "persistentvolumeclaims",
			`{kind: PersistentVolumeClaim, metadata: {name: c, namespace: a, annotations: {volume.beta.kubernetes.io/storage-class: gp2}}, spec: {storageClassName: gp2, volumeName: gp2}}`,
			`{kind: PersistentVolumeClaim, metadata: {name: c, namespace: a, annotations: {volume.beta.kubernetes.io/storage-class: gp3}}, spec: {storageClassName: gp3, volumeName: gp2}}`, nil,
		},
		{"a volume", "persistentvolumes", `{metadata: {name: v}, spec: {storageClassName: gp2}}`, `{metadata: {name: v}, spec: {storageClassName: gp3}}`, nil},
		{
			"claim templates and ephemeral volumes", "statefulsets.apps",
			`{metadata: {name: s, namespace: a}, spec: {volumeClaimTemplates: [{spec: {storageClassName: gp2}}, {spec: {}}],
			  template: {spec: {volumes: [{ephemeral: {volumeClaimTemplate: {spec: {storageClassName: slow}}}}]}}}}`,
			`{metadata: {name: s, namespace: a}, spec: {volumeClaimTemplates: [{spec: {storageClassName: gp3}}, {spec: {}}],
			  template: {spec: {volumes: [{ephemeral: {volumeClaimTemplate: {spec: {storageClassName: gp3}}}}]}}}}`, nil,
		},
		{
			"quotas by class", "resourcequotas",
			`{metadata: {name: q, namespace: a}, spec: {hard: {gp2.storageclass.storage.k8s.io/requests.storage: 5Gi, pods: 3}}}`,
			`{metadata: {name: q, namespace: a}, spec: {hard: {gp3.storageclass.storage.k8s.io/requests.storage: 5Gi, pods: 3}}}`, nil,
		},
		{
			"quotas that would be one", "resourcequotas",
			`{metadata: {name: q, namespace: a}, spec: {hard: {gp2.storageclass.storage.k8s.io/requests.storage: 5Gi, slow.storageclass.storage.k8s.io/requests.storage: 1Gi}}}`,
			`{metadata: {name: q, namespace: a}, spec: {hard: {gp3.storageclass.storage.k8s.io/requests.storage: 5Gi, slow.storageclass.storage.k8s.io/requests.storage: 1Gi}}}`,
			[]string{"MappedToSame: spec.hard limits slow"},
		},
		{"a StorageClass keeps its name", "storageclasses.storage.k8s.io", `{metadata: {name: gp2}}`, "", nil},
		{
			"an unknown kind is reported", "clusters.postgresql.cnpg.io", `{metadata: {name: p, namespace: a}, spec: {storage: {storageClass: gp2, size: gp2}}}`, "",
			[]string{`spec.storage.storageClass holds "gp2", which transforms.storageClasses["gp2"] maps`},
		},
	})
}

func TestImages(t *testing.T) {
	p := compile(t, Options{Transforms: &v1alpha1.Transforms{Images: map[string]string{
		"old.example/*": "new.example/mirror/*", "old.example/team/*": "team.example/*", "docker.io/*": "hub.example/*",
		"quay.io/a/b:1": "quay.example/a/b:2", "gone.example/*": "fixed.example/all:1",
	}}})
	pod := func(a, b, c, d string) string {
		return `{containers: [{name: a, image: "` + a + `"}, {name: x}], initContainers: [{image: "` + b + `"}], ephemeralContainers: [{image: "` + c + `"}],
		  volumes: [{image: {reference: "` + d + `"}}]}`
	}
	before := pod("old.example/a@sha256:1", "old.example/team/b:2", "nginx:1", "quay.io/a/b:1")
	after := pod("new.example/mirror/a@sha256:1", "team.example/b:2", "hub.example/library/nginx:1", "quay.example/a/b:2")
	var list []example
	for res, wrap := range map[string][2]string{
		"pods":                   {`{metadata: {name: a, namespace: a}, spec: `, `}`},
		"podtemplates":           {`{metadata: {name: a, namespace: a}, template: {spec: `, `}}`},
		"deployments.apps":       {`{metadata: {name: a, namespace: a}, spec: {template: {spec: `, `}}}`},
		"statefulsets.apps":      {`{metadata: {name: a, namespace: a}, spec: {template: {spec: `, `}}}`},
		"replicasets.apps":       {`{metadata: {name: a, namespace: a}, spec: {template: {spec: `, `}}}`},
		"daemonsets.apps":        {`{metadata: {name: a, namespace: a}, spec: {template: {spec: `, `}}}`},
		"deployments.extensions": {`{metadata: {name: a, namespace: a}, spec: {template: {spec: `, `}}}`},
		"replicationcontrollers": {`{metadata: {name: a, namespace: a}, spec: {template: {spec: `, `}}}`},
		"jobs.batch":             {`{metadata: {name: a, namespace: a}, spec: {template: {spec: `, `}}}`},
		"cronjobs.batch":         {`{metadata: {name: a, namespace: a}, spec: {jobTemplate: {spec: {template: {spec: `, `}}}}}`},
		"rollouts.argoproj.io":   {`{metadata: {name: a, namespace: a}, spec: {template: {spec: `, `}}}`},
	} {
		list = append(list, example{res, res, wrap[0] + before + wrap[1], wrap[0] + after + wrap[1], nil})
	}
	list = append(list,
		example{
			"references with and without a registry", "pods",
			`{metadata: {name: a, namespace: a}, spec: ` + pod("bitnami/redis", "localhost/x", "reg:5000/x", "gone.example/x:9") + `}`,
			`{metadata: {name: a, namespace: a}, spec: ` + pod("hub.example/bitnami/redis", "localhost/x", "reg:5000/x", "fixed.example/all:1") + `}`, nil,
		},
		example{"other registries", "pods", `{metadata: {name: a, namespace: a}, spec: ` + pod("quay.io/a/b:3", "oldexample/x.io", "a.b/old.example/c", "ghcr.io/x") + `}`,
			`{metadata: {name: a, namespace: a}, spec: ` + pod("quay.io/a/b:3", "hub.example/oldexample/x.io", "a.b/old.example/c", "ghcr.io/x") + `}`, nil},
		example{
			"an unknown kind is reported", "prometheuses.monitoring.coreos.com", `{metadata: {name: p, namespace: a}, spec: {image: "old.example/p:1", url: "old.example/p:1"}}`, "",
			[]string{`spec.image holds "old.example/p:1", which transforms.images["old.example/*"] maps`},
		},
	)
	run(t, p, list)
}

func TestNodeSelectors(t *testing.T) {
	p := compile(t, Options{Transforms: &v1alpha1.Transforms{NodeSelectors: map[string]string{
		"pool=blue": "pool=green", "eks.amazonaws.com/nodegroup=old": "karpenter.sh/nodepool=new", "gone=": "", "a=1": "b=2",
	}}})
	run(t, p, []example{
		{
			"selectors", "pods",
			`{metadata: {name: a, namespace: a}, spec: {nodeSelector: {pool: blue, eks.amazonaws.com/nodegroup: old, gone: "", kept: x}}}`,
			`{metadata: {name: a, namespace: a}, spec: {nodeSelector: {pool: green, karpenter.sh/nodepool: new, kept: x}}}`, nil,
		},
		{"another value", "pods", `{metadata: {name: a, namespace: a}, spec: {nodeSelector: {pool: red}}}`, "", nil},
		{
			"a key that is taken", "pods",
			`{metadata: {name: a, namespace: a}, spec: {nodeSelector: {a: "1", b: "1"}}}`, `{metadata: {name: a, namespace: a}, spec: {nodeSelector: {b: "2"}}}`,
			[]string{"spec.nodeSelector had another value for b"},
		},
		{
			"affinity of the same key", "pods",
			`{metadata: {name: a, namespace: a}, spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [green, blue]}]}]},
			  preferredDuringSchedulingIgnoredDuringExecution: [{preference: {matchExpressions: [{key: eks.amazonaws.com/nodegroup, operator: In, values: [old]}]}}]}}}}`,
			`{metadata: {name: a, namespace: a}, spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [green]}]}]},
			  preferredDuringSchedulingIgnoredDuringExecution: [{preference: {matchExpressions: [{key: eks.amazonaws.com/nodegroup, operator: In, values: [old]}]}}]}}}}`,
			[]string{"asks for eks.amazonaws.com/nodegroup=old"},
		},
		{
			"runtime classes", "runtimeclasses.node.k8s.io", `{metadata: {name: a}, scheduling: {nodeSelector: {pool: blue}}}`, `{metadata: {name: a}, scheduling: {nodeSelector: {pool: green}}}`, nil,
		},
	})
}

func TestZones(t *testing.T) {
	p := compile(t, Options{Transforms: &v1alpha1.Transforms{Zones: map[string]string{"us-east-1a": "eu-west-1a", "us-east-1b": "eu-west-1b", "us-east-1c": "eu-west-1b", "use1-az1": "euw1-az1"}}})
	run(t, p, []example{
		{
			"a volume", "persistentvolumes",
			`{metadata: {name: v, labels: {topology.kubernetes.io/zone: us-east-1a, topology.kubernetes.io/region: us-east-1, x: us-east-1a}},
			  spec: {nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: topology.ebs.csi.aws.com/zone, operator: In, values: [us-east-1a]},
			  {key: topology.kubernetes.io/region, operator: In, values: [us-east-1]}, {key: other, operator: In, values: [us-east-1a]}]}]}}}}`,
			`{metadata: {name: v, labels: {topology.kubernetes.io/zone: eu-west-1a, topology.kubernetes.io/region: eu-west-1, x: us-east-1a}},
			  spec: {nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: topology.ebs.csi.aws.com/zone, operator: In, values: [eu-west-1a]},
			  {key: topology.kubernetes.io/region, operator: In, values: [eu-west-1]}, {key: other, operator: In, values: [us-east-1a]}]}]}}}}`, nil,
		},
		{
			"an in-tree volume", "persistentvolumes",
			`{metadata: {name: v, labels: {failure-domain.beta.kubernetes.io/zone: us-east-1b}}, spec: {awsElasticBlockStore: {volumeID: "aws://us-east-1b/vol-1"}}}`,
			`{metadata: {name: v, labels: {failure-domain.beta.kubernetes.io/zone: eu-west-1b}}, spec: {awsElasticBlockStore: {volumeID: "aws://eu-west-1b/vol-1"}}}`, nil,
		},
		{"a volume by its id alone", "persistentvolumes", `{metadata: {name: v}, spec: {awsElasticBlockStore: {volumeID: vol-1}}}`, "", nil},
		{
			"a class", "storageclasses.storage.k8s.io",
			`{metadata: {name: s}, parameters: {zones: "us-east-1a, us-east-1b"}, allowedTopologies: [{matchLabelExpressions: [{key: topology.kubernetes.io/zone, values: [us-east-1b, us-east-1c]}]}]}`,
			`{metadata: {name: s}, parameters: {zones: "eu-west-1a, eu-west-1b"}, allowedTopologies: [{matchLabelExpressions: [{key: topology.kubernetes.io/zone, values: [eu-west-1b]}]}]}`, nil,
		},
		{
			"pods", "deployments.apps",
			`{metadata: {name: d, namespace: a}, spec: {template: {spec: {nodeSelector: {topology.kubernetes.io/zone: us-east-1a, topology.k8s.aws/zone-id: use1-az1, pool: us-east-1a},
			  affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{preference: {matchExpressions: [{key: topology.kubernetes.io/zone, operator: NotIn, values: [us-east-1a, ap-south-1a]}]}}]}}}}}}`,
			`{metadata: {name: d, namespace: a}, spec: {template: {spec: {nodeSelector: {topology.kubernetes.io/zone: eu-west-1a, topology.k8s.aws/zone-id: euw1-az1, pool: us-east-1a},
			  affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{preference: {matchExpressions: [{key: topology.kubernetes.io/zone, operator: NotIn, values: [eu-west-1a, ap-south-1a]}]}}]}}}}}}`, nil,
		},
		{
			"Karpenter's node pools", "nodepools.karpenter.sh",
			`{metadata: {name: n}, spec: {template: {spec: {requirements: [{key: topology.kubernetes.io/zone, operator: In, values: [us-east-1a]}]}}, other: us-east-1a}}`,
			`{metadata: {name: n}, spec: {template: {spec: {requirements: [{key: topology.kubernetes.io/zone, operator: In, values: [eu-west-1a]}]}}, other: us-east-1a}}`,
			[]string{`spec.other holds "us-east-1a"`},
		},
	})
}

func TestFileSystems(t *testing.T) {
	p := compile(t, Options{Transforms: &v1alpha1.Transforms{FileSystems: map[string]string{"fs-0123456789abcdef0": "fs-0fedcba9876543210"}}})
	run(t, p, []example{
		{
			"a volume", "persistentvolumes",
			`{metadata: {name: v}, spec: {csi: {driver: efs.csi.aws.com, volumeHandle: fs-0123456789abcdef0}}}`,
			`{metadata: {name: v}, spec: {csi: {driver: efs.csi.aws.com, volumeHandle: fs-0fedcba9876543210}}}`, nil,
		},
		{
			"a folder", "persistentvolumes",
			`{metadata: {name: v}, spec: {csi: {driver: efs.csi.aws.com, volumeHandle: "efs:fs-0123456789abcdef0:/a"}}}`,
			`{metadata: {name: v}, spec: {csi: {driver: efs.csi.aws.com, volumeHandle: "efs:fs-0fedcba9876543210:/a"}}}`, nil,
		},
		{
			"an access point", "persistentvolumes",
			`{metadata: {name: v}, spec: {csi: {driver: efs.csi.aws.com, volumeHandle: "fs-0123456789abcdef0::fsap-1"}}}`, "",
			[]string{"names access point fsap-1 of fs-0123456789abcdef0, which fs-0fedcba9876543210 does not have"},
		},
		{
			"another file system", "persistentvolumes",
			`{metadata: {name: v}, spec: {csi: {driver: efs.csi.aws.com, volumeHandle: fs-0123456789abcdef01}}}`, "", nil,
		},
		{
			"another driver", "persistentvolumes",
			`{metadata: {name: v}, spec: {csi: {driver: fsx.csi.aws.com, volumeHandle: fs-0123456789abcdef0}}}`, "", nil,
		},
		{
			"a class", "storageclasses.storage.k8s.io",
			`{metadata: {name: s}, provisioner: efs.csi.aws.com, parameters: {provisioningMode: efs-ap, fileSystemId: fs-0123456789abcdef0}}`,
			`{metadata: {name: s}, provisioner: efs.csi.aws.com, parameters: {provisioningMode: efs-ap, fileSystemId: fs-0fedcba9876543210}}`, nil,
		},
		{
			"a class of another driver", "storageclasses.storage.k8s.io",
			`{metadata: {name: s}, provisioner: fsx.csi.aws.com, parameters: {fileSystemId: fs-0123456789abcdef0}}`, "", nil,
		},
	})
	if _, err := Compile(Options{Transforms: &v1alpha1.Transforms{FileSystems: map[string]string{"fs-0123456789abcdef0": "vol-1"}}}); err == nil || !strings.Contains(err.Error(), `transforms.fileSystems["fs-0123456789abcdef0"]`) {
		t.Errorf("a volume for a file system gives %v", err)
	}
}

func TestKMSKeys(t *testing.T) {
	const old, next = "arn:aws:kms:eu-west-1:111122223333:key/a", "arn:aws:kms:eu-central-1:444455556666:key/b"
	p := compile(t, Options{Transforms: &v1alpha1.Transforms{KMSKeys: map[string]string{"arn:aws:kms:eu-west-1:*": next}}})
	run(t, p, []example{
		{
			"a class", "storageclasses.storage.k8s.io",
			`{metadata: {name: s}, provisioner: ebs.csi.aws.com, parameters: {type: gp3, kmsKeyId: "` + old + `"}}`,
			`{metadata: {name: s}, provisioner: ebs.csi.aws.com, parameters: {type: gp3, kmsKeyId: "` + next + `"}}`, nil,
		},
		{
			"a class of another driver", "storageclasses.storage.k8s.io",
			`{metadata: {name: s}, provisioner: efs.csi.aws.com, parameters: {kmsKeyId: "` + old + `"}}`, "", nil,
		},
		{
			"another region's", "storageclasses.storage.k8s.io",
			`{metadata: {name: s}, provisioner: ebs.csi.aws.com, parameters: {kmsKeyId: "arn:aws:kms:us-east-1:111122223333:key/a"}}`, "", nil,
		},
	})
	if key, ok := p.KMSKey(old); !ok || key != next {
		t.Errorf("the key of a volume becomes %q, %v", key, ok)
	}
	if key, ok := p.KMSKey(next); ok {
		t.Errorf("another key becomes %q", key)
	}
	if key, ok := compile(t, Options{}).KMSKey(old); ok {
		t.Errorf("without a mapping the key becomes %q", key)
	}
	if _, err := Compile(Options{Transforms: &v1alpha1.Transforms{KMSKeys: map[string]string{old: "alias/mine"}}}); err == nil || !strings.Contains(err.Error(), `transforms.kmsKeys["`+old+`"]`) {
		t.Errorf("an alias gives %v", err)
	}
}

func TestImpliedRegions(t *testing.T) {
	for _, c := range []struct {
		name  string
		zones map[string]string
		want  string
	}{
		{"one region", map[string]string{"us-east-1a": "eu-west-1a", "us-east-1b": "eu-west-1c"}, `{"us-east-1":"eu-west-1"}`},
		{"the same region", map[string]string{"us-east-1a": "us-east-1b"}, `{}`},
		{"two regions", map[string]string{"us-east-1a": "eu-west-1a", "us-east-1b": "us-west-2a"}, `{}`},
		{"partly the same region", map[string]string{"us-east-1a": "eu-west-1a", "us-east-1b": "us-east-1c"}, `{}`},
		{"no names of AWS", map[string]string{"rack-1": "rack-2", "us-east-1a": "rack-1"}, `{}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := newMapping("z", c.zones, zoneRules)
			if err != nil {
				t.Fatal(err)
			}
			if got := encode(t, impliedRegions(m)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestAWS(t *testing.T) {
	p := compile(t, Options{Transforms: &v1alpha1.Transforms{
		RoleARNs: map[string]string{"arn:aws:iam::111111111111:role/*": "arn:aws:iam::222222222222:role/green-*"},
		LoadBalancerValues: map[string]string{
			"sg-1": "sg-9", "subnet-1": "subnet-9", "subnet-2": "subnet-8", "logs-blue": "logs-green", "vpc-1": "vpc-9",
			"arn:aws:acm:us-east-1:1:certificate/*": "arn:aws:acm:eu-west-1:2:certificate/*", "arn:tg/1": "arn:tg/2",
		},
	}})
	run(t, p, []example{
		{
			"a service account", "serviceaccounts",
			`{metadata: {name: s, namespace: a, annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::111111111111:role/app", x: "arn:aws:iam::111111111111:role/app"}}}`,
			`{metadata: {name: s, namespace: a, annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::222222222222:role/green-app", x: "arn:aws:iam::111111111111:role/app"}}}`, nil,
		},
		{
			"a role in a pod is reported", "deployments.apps",
			`{metadata: {name: d, namespace: a}, spec: {template: {spec: {containers: [{env: [{name: AWS_ROLE_ARN, value: "arn:aws:iam::111111111111:role/app"}]}]}}}}`, "",
			[]string{`env[0].value holds "arn:aws:iam::111111111111:role/app"`},
		},
		{
			"a service", "services",
			`{metadata: {name: s, namespace: a, annotations: {service.beta.kubernetes.io/aws-load-balancer-security-groups: "sg-1, sg-2,sg-1",
			  service.beta.kubernetes.io/aws-load-balancer-attributes: "access_logs.s3.bucket=logs-blue,deletion_protection.enabled=true",
			  service.beta.kubernetes.io/aws-load-balancer-ssl-cert: "arn:aws:acm:us-east-1:1:certificate/x", other: sg-1}}}`,
			`{metadata: {name: s, namespace: a, annotations: {service.beta.kubernetes.io/aws-load-balancer-security-groups: "sg-9, sg-2,sg-9",
			  service.beta.kubernetes.io/aws-load-balancer-attributes: "access_logs.s3.bucket=logs-green,deletion_protection.enabled=true",
			  service.beta.kubernetes.io/aws-load-balancer-ssl-cert: "arn:aws:acm:eu-west-1:2:certificate/x", other: sg-1}}}`, nil,
		},
		{
			"an ingress with JSON", "ingresses.networking.k8s.io",
			`{metadata: {name: s, namespace: a, annotations: {alb.ingress.kubernetes.io/subnets: "subnet-1,subnet-2", alb.ingress.kubernetes.io/actions.x: '{"type":"forward","targetGroupARN":"arn:tg/1"}'}}}`,
			`{metadata: {name: s, namespace: a, annotations: {alb.ingress.kubernetes.io/subnets: "subnet-9,subnet-8", alb.ingress.kubernetes.io/actions.x: '{"type":"forward","targetGroupARN":"arn:tg/2"}'}}}`, nil,
		},
		{
			"a target group binding", "targetgroupbindings.elbv2.k8s.aws",
			`{metadata: {name: t, namespace: a}, spec: {targetGroupARN: "arn:tg/1", vpcID: vpc-1, networking: {ingress: [{from: [{securityGroup: {groupID: sg-1}}]}]}}}`,
			`{metadata: {name: t, namespace: a}, spec: {targetGroupARN: "arn:tg/2", vpcID: vpc-9, networking: {ingress: [{from: [{securityGroup: {groupID: sg-9}}]}]}}}`, nil,
		},
		{
			"groups of pods", "securitygrouppolicies.vpcresources.k8s.aws",
			`{metadata: {name: t, namespace: a}, spec: {securityGroups: {groupIds: [sg-1, sg-3]}}}`, `{metadata: {name: t, namespace: a}, spec: {securityGroups: {groupIds: [sg-9, sg-3]}}}`, nil,
		},
	})
}
