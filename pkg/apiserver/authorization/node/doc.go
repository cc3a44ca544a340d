// Package node authorizes kubelets. What a node may do at all is the role
// system:node; of which objects it may read the contents is decided by the pods
// that are bound to it: their Secrets, ConfigMaps, claims, volumes, ServiceAccounts.
//
// The relations are kept in an [index] that informers feed, and that answers
// "does node N need object X?" without walking anything.
package node
