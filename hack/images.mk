# The images that a cluster needs without a registry, as OCI archives in bin/images.

IMAGES := bin/images

.PHONY: images
images: $(IMAGES)/.done ## Build the images of pause, CoreDNS and busybox as OCI archives

$(IMAGES)/.done: hack/images/main.go hack/images/pause/main.go $(RUNTIME)/.coredns | prerequisites
	@mkdir -p $(IMAGES)
	cd $(IMAGES) && { apt-get -qq download busybox || { apt-get -qq update && apt-get -qq download busybox; }; } && \
		dpkg -x busybox_*.deb .busybox && rm busybox_*.deb
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o $(IMAGES)/.pause ./hack/images/pause
	go run ./hack/images -out $(IMAGES) -arch $(shell go env GOARCH) \
		-pause $(IMAGES)/.pause -coredns $(RUNTIME)/coredns -busybox $(IMAGES)/.busybox/bin/busybox
	@touch $@
