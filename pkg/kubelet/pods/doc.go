// Package pods runs the node's pods: it knows which are desired, admits them, and gives
// each one worker that owns it from its first container to the last trace of it.
//
// What a worker does follows from [Decide], a pure function of the desired pod, what the
// runtime has of it, what its probes say and the time. The worker carries the plan out, looks again and
// decides anew until there is nothing left to do; then it sleeps until something changes.
package pods
