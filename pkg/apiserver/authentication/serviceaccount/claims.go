package serviceaccount

import (
	"time"

	"github.com/google/uuid"
	"gopkg.in/go-jose/go-jose.v2/jwt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiserverserviceaccount "k8s.io/apiserver/pkg/authentication/serviceaccount"
)

const (
	// kubeletExpirationSeconds is what the ServiceAccount admission plugin asks
	// for in the volumes that it injects. A request for exactly this long is
	// therefore from a client that may not know to read its token again.
	kubeletExpirationSeconds = 60*60 + 7
	// extendedExpiration is how long such a token is accepted in truth.
	extendedExpiration = 365 * 24 * time.Hour
)

// claims of a bound token: the registered ones, and Kubernetes' own.
type claims struct {
	jwt.Claims
	private privateClaims
}

type privateClaims struct {
	Kubernetes kubernetesClaims `json:"kubernetes.io,omitempty"`
}

type kubernetesClaims struct {
	Namespace      string           `json:"namespace,omitempty"`
	ServiceAccount reference        `json:"serviceaccount,omitempty"`
	Pod            *reference       `json:"pod,omitempty"`
	Secret         *reference       `json:"secret,omitempty"`
	Node           *reference       `json:"node,omitempty"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

type reference struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

func refTo(o metav1.Object) *reference {
	return &reference{Name: o.GetName(), UID: string(o.GetUID())}
}

// binding is what a token's life hangs on besides its ServiceAccount: nothing, a
// Secret, a Pod with the Node that it runs on, if any, or a Node.
type binding struct {
	secret *corev1.Secret
	pod    *corev1.Pod
	node   *corev1.Node
}

// newClaims are the claims of a token that is valid from now for the given time.
// warnAfter, if it is not zero, is the age from which its use is reported.
func newClaims(sa *corev1.ServiceAccount, b binding, audiences []string, now time.Time, validity, warnAfter time.Duration) claims {
	c := claims{
		Claims: jwt.Claims{
			Subject:   apiserverserviceaccount.MakeUsername(sa.Namespace, sa.Name),
			Audience:  jwt.Audience(audiences),
			IssuedAt:  jwt.NewNumericDate(now),
			NotBefore: jwt.NewNumericDate(now),
			Expiry:    jwt.NewNumericDate(now.Add(validity)),
			ID:        uuid.NewString(),
		},
		private: privateClaims{Kubernetes: kubernetesClaims{
			Namespace:      sa.Namespace,
			ServiceAccount: *refTo(sa),
		}},
	}
	k := &c.private.Kubernetes
	if b.secret != nil {
		k.Secret = refTo(b.secret)
	}
	if b.pod != nil {
		k.Pod = refTo(b.pod)
	}
	if b.node != nil {
		k.Node = refTo(b.node)
	}
	if warnAfter != 0 {
		k.WarnAfter = jwt.NewNumericDate(now.Add(warnAfter))
	}
	return c
}
