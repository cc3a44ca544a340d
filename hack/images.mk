# The images that a cluster needs without a registry, as OCI archives in bin/images.

IMAGES := bin/images

.PHONY: images
images: $(IMAGES)/.done ## Build the images of pause, CoreDNS and busybox as OCI archives

$(IMAGES)/.done: hack/images/main.go hack/images/pause/main.go $(RUNTIME)/.coredns | prerequisites
	@mkdir -p $(IMAGES)
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o $(IMAGES)/.pause ./hack/images/pause
	go run ./hack/images -out $(IMAGES) -arch $(shell go env GOARCH) \
		-pause $(IMAGES)/.pause -coredns $(RUNTIME)/coredns -busybox /bin/busybox
	@touch $@
