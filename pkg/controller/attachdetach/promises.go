package attachdetach

import "time"

// promisedAgain is when to look again for a volume that another node has been promised.
const promisedAgain = time.Second

// promises are volumes that can be attached to one node only, with the node that gets them: the VolumeAttachment is being created, and nobody else can
// see it yet. A promise ends when the node has been looked at once more: then the attachment can be seen, or is not wanted any more.
type promises map[string]string

// toOthers returns the volumes that other nodes than this one get.
func (p promises) toOthers(node string) map[string]bool {
	volumes := map[string]bool{}
	for volume, to := range p {
		if to != node {
			volumes[volume] = true
		}
	}
	return volumes
}

// keep makes what a node is to be given now all that it has been promised.
func (p promises) keep(node string, attach []*wanted) {
	for volume, to := range p {
		if to == node {
			delete(p, volume)
		}
	}
	for _, w := range attach {
		if w.exclusive() {
			p[w.name] = node
		}
	}
}
