package nft

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/knftables"
)

// Rules say how traffic is told apart.
type Rules struct {
	// Local matches traffic of this node's own pods, such as "ip saddr 10.244.0.0/24";
	// empty if it cannot be told.
	Local string
	// MasqueradeAll masquerades all traffic to cluster IPs.
	MasqueradeAll bool
	// Mark is the bit that marks packets to masquerade.
	Mark uint32
}

// Table is one family's table in the kernel. It belongs to one goroutine.
type Table struct {
	nft    knftables.Interface
	family Family
	rules  Rules
	// have are the classes and affinity times that have their chains.
	have map[string]bool
	// built says that the table holds what was last applied.
	built bool
}

// NewTable returns the table name of a family. Nothing is written yet.
func NewTable(family Family, name string, rules Rules) (*Table, error) {
	n, err := knftables.New(knftables.Family(family), name)
	if err != nil {
		return nil, fmt.Errorf("nftables for %s: %w", family, err)
	}
	return newTable(n, family, rules), nil
}

func newTable(n knftables.Interface, family Family, rules Rules) *Table {
	return &Table{nft: n, family: family, rules: rules, have: map[string]bool{}}
}

// Apply brings the kernel to the state. What it writes is a single transaction: packets
// see the old rules or the new. After a failure, and at first, the whole table is
// written; otherwise only what changed.
func (t *Table) Apply(ctx context.Context, s *State) error {
	tx := t.nft.NewTransaction()
	plan := s.Plan()
	if !t.built {
		plan = s.All()
		t.have = map[string]bool{}
		t.skeleton(tx)
	}
	if t.built && len(plan) == 0 {
		return nil
	}
	made := t.classes(tx, plan)
	for _, c := range plan {
		if c.Had && t.built {
			tx.Delete(t.element(c.Element, c.Old))
		}
	}
	for _, c := range plan {
		if c.Has {
			tx.Add(t.element(c.Element, c.New))
		}
	}
	if err := t.nft.Run(ctx, tx); err != nil {
		t.built = false // what is there is not known any more: write it all the next time
		return fmt.Errorf("writing %d changes to the %s table: %w", len(plan), t.family, err)
	}
	for name := range made {
		t.have[name] = true
	}
	t.built = true
	s.Committed()
	return nil
}

// Remove deletes the table, if it is there.
func (t *Table) Remove(ctx context.Context) error {
	tx := t.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	t.built = false
	return t.nft.Run(ctx, tx)
}

func (t *Table) element(e Element, value string) *knftables.Element {
	el := &knftables.Element{Key: strings.Split(e.Key, sep)}
	if isSet(e.Container) {
		el.Set = e.Container
		return el
	}
	el.Map = e.Container
	el.Value = strings.Split(value, sep)
	return el
}

func isSet(container string) bool {
	switch container {
	case "cluster-ips", "service-cidrs", "hairpin", "restricted", "allowed":
		return true
	}
	return strings.HasPrefix(container, "affine-")
}

// frontend is the key of most maps and sets: where the packet goes.
func (t *Table) frontend() string { return t.ip() + " daddr . meta l4proto . th dport" }

func (t *Table) ip() string { return string(t.family) }

// skeleton writes the part of the table that no Service changes, in place of whatever
// was there.
func (t *Table) skeleton(tx *knftables.Transaction) {
	ip, frontend := t.ip(), t.frontend()
	client := ip + " saddr . " + frontend
	mark := fmt.Sprintf("%#x", t.rules.Mark)

	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("rules for Kubernetes Services")})

	for name, comment := range map[string]string{
		"services": "what happens at each address and port",
		"inside":   "the same for traffic from inside, where that from outside stays on its node",
		"outside":  "and for that from outside",
		"closed":   "addresses and ports without endpoints",
	} {
		tx.Add(&knftables.Map{Name: name, Type: t.typeOf(frontend) + " : verdict", Comment: &comment})
	}
	tx.Add(&knftables.Set{Name: "cluster-ips", Type: t.typeOf(ip + " daddr")})
	tx.Add(&knftables.Set{
		Name: "service-cidrs", Type: t.typeOf(ip + " daddr"), Flags: []knftables.SetFlag{knftables.IntervalFlag},
		Comment: knftables.PtrTo("where cluster IPs come from"),
	})
	tx.Add(&knftables.Set{Name: "hairpin", Type: t.typeOf(ip + " saddr . " + ip + " daddr"), Comment: knftables.PtrTo("endpoints that may reach themselves")})
	tx.Add(&knftables.Set{Name: "restricted", Type: t.typeOf(frontend), Comment: knftables.PtrTo("addresses and ports with loadBalancerSourceRanges")})
	tx.Add(&knftables.Set{Name: "allowed", Type: t.typeOf(frontend + " . " + ip + " saddr"), Flags: []knftables.SetFlag{knftables.IntervalFlag}})
	tx.Add(&knftables.Map{
		Name: "affinity", Type: t.typeOf(client) + " : " + t.typeOf(ip+" daddr . th dport"),
		Flags: []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag}, Size: knftables.PtrTo(uint64(1 << 20)),
		Comment: knftables.PtrTo("which endpoint a client was given"),
	})

	chain := func(name string, rules ...string) {
		tx.Add(&knftables.Chain{Name: name})
		t.addRules(tx, name, rules)
	}
	chain("reject-it", "reject")
	chain("drop-it", "drop")
	local := []string{"fib saddr type local meta mark set mark or " + mark + " " + frontend + " vmap @inside"}
	if t.rules.Local != "" {
		local = append([]string{t.rules.Local + " " + frontend + " vmap @inside"}, local...)
	}
	chain("local-traffic", append(local, frontend+" vmap @outside")...)

	base := func(name string, kind knftables.BaseChainType, hook knftables.BaseChainHook, priority knftables.BaseChainPriority, rules ...string) {
		tx.Add(&knftables.Chain{Name: name, Type: &kind, Hook: &hook, Priority: &priority})
		t.addRules(tx, name, rules)
	}
	// A packet that asks for a Service becomes one for an endpoint.
	dnat := []string{}
	switch {
	case t.rules.MasqueradeAll:
		dnat = append(dnat, ip+" daddr @cluster-ips meta mark set mark or "+mark)
	case t.rules.Local != "":
		// What does not come from a pod of this node would be answered past it.
		dnat = append(dnat, ip+" daddr @cluster-ips jump masquerade-foreign")
		chain("masquerade-foreign", t.rules.Local+" return", "meta mark set mark or "+mark)
	}
	dnat = append(dnat, frontend+" vmap @services")
	base("nat-prerouting", knftables.NATType, knftables.PreroutingHook, knftables.DNATPriority, dnat...)
	base("nat-output", knftables.NATType, knftables.OutputHook, knftables.DNATPriority, dnat...)

	// The answers must come back the way they went.
	base("nat-postrouting", knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority,
		"ct status dnat "+ip+" saddr . "+ip+" daddr @hairpin masquerade fully-random",
		"meta mark & "+mark+" == 0 return",
		"meta mark set mark xor "+mark,
		"masquerade fully-random")

	// What has no endpoints is refused at once, not left to time out.
	closed := []string{"ct state new " + frontend + " vmap @closed"}
	unknown := []string{
		ip + " daddr @cluster-ips ct state new goto reject-it", // a port that the Service does not have
		ip + " daddr @service-cidrs ct state new goto drop-it", // no Service has the address, and nothing outside of the cluster is meant
	}
	base("filter-prerouting", knftables.FilterType, knftables.PreroutingHook, knftables.DNATPriority+"-10",
		"ct state new "+frontend+" @restricted "+frontend+" . "+ip+" saddr != @allowed drop")
	base("filter-output-restricted", knftables.FilterType, knftables.OutputHook, knftables.DNATPriority+"-10",
		"ct state new "+frontend+" @restricted "+frontend+" . "+ip+" saddr != @allowed drop")
	base("filter-input", knftables.FilterType, knftables.InputHook, knftables.FilterPriority, closed...)
	base("filter-forward", knftables.FilterType, knftables.ForwardHook, knftables.FilterPriority, append(closed, unknown...)...)
	base("filter-output", knftables.FilterType, knftables.OutputHook, knftables.FilterPriority, append(closed, unknown...)...)

	// Which endpoint a client was given is known only here, after the choice was made.
	base("affinity-record", knftables.FilterType, knftables.PostroutingHook, knftables.SNATPriority+"-1")
}

func (t *Table) addRules(tx *knftables.Transaction, chain string, rules []string) {
	for _, r := range rules {
		tx.Add(&knftables.Rule{Chain: chain, Rule: r})
	}
}

var (
	classContainer  = regexp.MustCompile(`^(local-)?ep-(\d+)$`)
	affineContainer = regexp.MustCompile(`^affine-(\d+)$`)
)

// classes makes the chains and maps that a plan needs and that are not there yet.
func (t *Table) classes(tx *knftables.Transaction, plan Plan) map[string]bool {
	made := map[string]bool{}
	for _, c := range plan {
		name := c.Container
		if !c.Has || t.have[name] || made[name] {
			continue
		}
		if m := classContainer.FindStringSubmatch(name); m != nil {
			size, _ := strconv.Atoi(m[2]) // digits, says the expression
			t.class(tx, m[1], size)
			made[name] = true
		} else if m := affineContainer.FindStringSubmatch(name); m != nil {
			t.affine(tx, name, m[1])
			made[name] = true
		}
	}
	return made
}

// class writes what spreads traffic over size slots; prefix is "local-" for endpoints
// of this node only.
func (t *Table) class(tx *knftables.Transaction, prefix string, size int) {
	ip, frontend := t.ip(), t.frontend()
	random := fmt.Sprintf("%s . numgen random mod %d", frontend, size)
	endpoints, pick := fmt.Sprintf("%sep-%d", prefix, size), fmt.Sprintf("%spick-%d", prefix, size)
	tx.Add(&knftables.Map{Name: endpoints, TypeOf: random + " : " + ip + " daddr . th dport"})

	chain := func(name string, rules ...string) {
		tx.Add(&knftables.Chain{Name: name})
		t.addRules(tx, name, rules)
	}
	chain(pick, "dnat "+ip+" to "+random+" map @"+endpoints)
	chain("affine-"+pick, "dnat "+ip+" to "+ip+" saddr . "+frontend+" map @affinity", "goto "+pick)
	if prefix == "" {
		mark := fmt.Sprintf("meta mark set mark or %#x", t.rules.Mark)
		chain("masq-"+pick, mark, "goto "+pick)
		chain("masq-affine-"+pick, mark, "goto affine-"+pick)
	}
}

// affine writes what remembers, for a number of seconds, which endpoint a client got.
func (t *Table) affine(tx *knftables.Transaction, set, seconds string) {
	ip := t.ip()
	tx.Add(&knftables.Set{Name: set, Type: t.typeOf(t.frontend())})
	original := "ct original " + ip + " daddr . meta l4proto . ct original proto-dst"
	for _, proto := range []string{"tcp", "udp", "sctp"} { // nft must know the protocol to know what a port is
		tx.Add(&knftables.Rule{Chain: "affinity-record", Rule: fmt.Sprintf(
			"meta l4proto %s ct state new ct status dnat %s @%s update @affinity { ct original %s saddr . %s timeout %ss : %s daddr . th dport }",
			proto, original, set, ip, original, seconds, ip)})
	}
}

// typeOf names the type of an expression. nft can do that itself (typeof), but then
// refuses rules that use a map which was there before. Only for a random number there is
// no name: the maps of classes need typeof, and are written together with their rules.
func (t *Table) typeOf(expr string) string {
	address := "ipv4_addr"
	if t.family == IPv6 {
		address = "ipv6_addr"
	}
	return strings.NewReplacer(
		t.ip()+" saddr", address, t.ip()+" daddr", address,
		"meta l4proto", "inet_proto", "th dport", "inet_service",
	).Replace(expr)
}

// ForgetAffinity lets go of clients whose endpoint does not serve them any more: those
// for which valid, asked with a frontend's key and an endpoint, says no.
func (t *Table) ForgetAffinity(ctx context.Context, valid func(frontend Element, endpoint string) bool) error {
	if !t.built {
		return nil
	}
	clients, err := t.nft.ListElements(ctx, "map", "affinity")
	if err != nil {
		return fmt.Errorf("listing which client has which endpoint: %w", err)
	}
	tx := t.nft.NewTransaction()
	for _, c := range clients {
		if len(c.Key) == 4 && !valid(Element{"services", strings.Join(c.Key[1:], sep)}, strings.Join(c.Value, sep)) {
			tx.Delete(&knftables.Element{Map: "affinity", Key: c.Key})
		}
	}
	if tx.NumOperations() == 0 {
		return nil
	}
	return t.nft.Run(ctx, tx)
}
