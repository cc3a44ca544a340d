# Images for clusters without a registry, as OCI archives in bin/images.

IMAGES         := bin/images
IMAGE_PROGRAMS := $(IMAGES)/.programs
IMAGE_PACKER   := $(wildcard hack/images/*.go)

.PHONY: images
images: $(IMAGES)/.done ## Build the images of pause, CoreDNS and busybox as OCI archives

$(IMAGES)/.done: $(IMAGE_PACKER) $(IMAGE_PROGRAMS)/pause $(IMAGE_PROGRAMS)/busybox $(RUNTIME)/.coredns | prerequisites
	cp -f $(RUNTIME)/coredns $(IMAGE_PROGRAMS)
	go run ./hack/images -out $(IMAGES) -arch $(shell go env GOARCH) -programs $(IMAGE_PROGRAMS)
	@touch $@

$(IMAGE_PROGRAMS)/pause: hack/images/pause/main.go
	go build -ldflags '-s -w' -o $@ ./hack/images/pause

$(IMAGE_PROGRAMS)/busybox: hack/images/busybox.sh hack/images/debian.sh | prerequisites
	hack/images/busybox.sh $@

# The packages below the suite's images. Debian's stable release hardly moves, and the
# suite does not depend on how: they are downloaded again when this list changes.
DEBIAN_PACKAGES := bash bind9-dnsutils ca-certificates coreutils curl dash e2fsprogs findutils grep gzip hostname \
	iperf iproute2 iputils-ping libc-bin mawk netbase netcat-openbsd nginx-light perl-base procps sed socat stress tar util-linux

.PHONY: conformance-images
conformance-images: images $(IMAGES)/.conformance ## Build the images that the conformance suite asks for as an OCI archive

$(IMAGES)/.conformance: $(IMAGES)/.done $(IMAGES)/.debs/.done $(IMAGE_PROGRAMS)/.conformance $(RUNTIME)/.etcd
	cp -f $(RUNTIME)/etcd $(RUNTIME)/etcdctl $(IMAGE_PROGRAMS)
	go run ./hack/images -set conformance -out $(IMAGES) -arch $(shell go env GOARCH) -programs $(IMAGE_PROGRAMS) -debs $(IMAGES)/.debs \
		-sources "$$(go -C test/conformance list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images"
	@touch $@

$(IMAGES)/.debs/.done: hack/images.mk hack/images/debian.sh
	hack/images/debian.sh $(@D) $(DEBIAN_PACKAGES)
	@touch $@

TEST_IMAGES := k8s.io/kubernetes/test/images

$(IMAGE_PROGRAMS)/.conformance: test/conformance/go.mod test/conformance/sample-apiserver/go.mod
	@mkdir -p $(IMAGE_PROGRAMS)
	for p in agnhost nonewprivs resource-consumer resource-consumer/consume-cpu regression-issue-74839; do \
		go -C test/conformance build -mod=readonly -ldflags '-s -w' -o $(CURDIR)/$(IMAGE_PROGRAMS)/$${p##*/} $(TEST_IMAGES)/$$p || exit; done
	go -C test/conformance/sample-apiserver build -mod=readonly -ldflags '-s -w' -o $(CURDIR)/$(IMAGE_PROGRAMS)/sample-apiserver k8s.io/sample-apiserver
	@touch $@
