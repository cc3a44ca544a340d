package runtime

// Volume is a pod's volume as a container can mount it.
type Volume struct {
	// HostPath is the directory, file or block device on the host. Empty for an image volume.
	HostPath string
	// ReadOnly volumes are mounted so, whatever the mount says.
	ReadOnly bool
	// Relabel asks the runtime to set the SELinux label of the pod on the content.
	Relabel bool
	// SupplementalGroup is a group that the pod's containers need to use the volume; nil if none.
	SupplementalGroup *int64
	// Image is the image that is the content of an image volume, as written in the pod.
	Image string
}
