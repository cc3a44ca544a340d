# The parts of a node that Leme runs and, but for leme-init, does not write: each is built from a
# module that pins it, hack/runtime/<part>, into bin/runtime. A part is built again
# when its pin changes, not otherwise.

RUNTIME := bin/runtime
export GOWORK := off

CONTAINERD_VERSION = $(shell sed -n 's,.*github.com/containerd/containerd/v2 v\([^ ]*\).*,\1,p' hack/runtime/containerd/go.mod)
CNI_VERSION        = $(shell sed -n 's,.*github.com/containernetworking/plugins \(v[^ ]*\).*,\1,p' hack/runtime/cni/go.mod)

RUNTIME_PARTS := containerd runc cni etcd coredns

.PHONY: runtime
runtime: $(RUNTIME_PARTS:%=$(RUNTIME)/.%) $(RUNTIME)/leme-init ## Build containerd, runc, CNI plugins, etcd and CoreDNS from their pins

$(RUNTIME)/leme-init: $(wildcard cmd/leme-init/*.go pkg/cluster/machine/boot/*.go)
	@mkdir -p $(RUNTIME)
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o $@ ./cmd/leme-init

# What a part needs of the machine to be built (libseccomp) or to run (nft): the package is installed if its file is missing.
PREREQUISITES := /usr/bin/gcc=gcc /usr/include/stdlib.h=libc6-dev /usr/include/seccomp.h=libseccomp-dev \
	/usr/bin/pkg-config=pkg-config /usr/bin/bzip2=bzip2 /usr/sbin/nft=nftables

.PHONY: prerequisites
prerequisites:
	@missing=; for p in $(PREREQUISITES); do [ -e "$${p%%=*}" ] || missing="$$missing $${p##*=}"; done; \
	[ -z "$$missing" ] && exit 0; \
	if [ $$(id -u) != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "missing on this machine, install them first:$$missing" >&2; exit 1; fi; \
	echo "installing$$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $$missing

# $(call runtime-go,PART,LDFLAGS,EXTRA ARGUMENTS): go build in the part's module
runtime-go = go -C hack/runtime/$(1) build -mod=readonly -trimpath -buildvcs=false -ldflags '-s -w $(2)' $(3)

$(RUNTIME)/.%: hack/runtime/%/go.mod hack/runtime/%/go.sum | prerequisites
	@mkdir -p $(RUNTIME)/cni
	$(build-$*)
	@touch $@

define build-containerd
CGO_ENABLED=0 $(call runtime-go,containerd,-X github.com/containerd/containerd/v2/version.Version=$(CONTAINERD_VERSION),\
	-tags no_btrfs$(comma)no_zfs$(comma)no_devmapper$(comma)no_aufs -o $(CURDIR)/$(RUNTIME)/ tool)
endef

# The one part in C: libseccomp, linked statically.
define build-runc
CGO_ENABLED=1 $(call runtime-go,runc,-linkmode external -extldflags "-static",-tags seccomp$(comma)netgo$(comma)osusergo -o $(CURDIR)/$(RUNTIME)/ tool)
endef

define build-cni
CGO_ENABLED=0 $(call runtime-go,cni,-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$(CNI_VERSION),-o $(CURDIR)/$(RUNTIME)/cni/ tool)
endef

define build-etcd
CGO_ENABLED=0 $(call runtime-go,etcd,,-o $(CURDIR)/$(RUNTIME)/etcd go.etcd.io/etcd/server/v3)
CGO_ENABLED=0 $(call runtime-go,etcd,,-o $(CURDIR)/$(RUNTIME)/etcdctl go.etcd.io/etcd/etcdctl/v3)
endef

define build-coredns
CGO_ENABLED=0 $(call runtime-go,coredns,,-o $(CURDIR)/$(RUNTIME)/ tool)
endef

comma := ,
