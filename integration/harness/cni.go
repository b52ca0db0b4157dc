package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	interfaces = "/sys/class/net" // where the kernel shows network interfaces

	// Where containerd's CNI library notes what plugins answered; it has no setting.
	cniCache   = "/var/lib/cni"
	cniResults = cniCache + "/results"
)

// Network is what pods are connected to: a bridge of this machine, with the addresses of
// one /24, by the CNI plugins bridge and host-local. Pods reach each other and this
// machine, and nothing beyond it; nothing of the machine is changed for that.
type Network struct {
	Gateway  netip.Addr   // the machine's address on the bridge
	Pods     netip.Prefix // the addresses of pods, and the gateway
	Services netip.Prefix // for the API server, which has the first address, also on the bridge

	plugins string // folder with the plugins
	config  string // folder with their configuration
}

// StartNetwork makes the one bridge a run has, and the configuration of the plugins. The run
// removes it; what a killed program left the next StartNetwork removes.
func (r *Run) StartNetwork() (*Network, error) {
	n, err := r.newNetwork()
	if err != nil {
		return nil, fmt.Errorf("make a network for pods: %w", err)
	}
	return n, nil
}

func (r *Run) newNetwork() (*Network, error) {
	if err := removeStaleNetworks(); err != nil {
		return nil, err
	}
	if err := keepAbsent(r.Dir, cniResults, cniCache); err != nil {
		return nil, err
	}
	pods, services, err := freeSubnets()
	if err != nil {
		return nil, err
	}
	dir, err := r.folder("w")
	if err != nil {
		return nil, err
	}
	n := &Network{
		Gateway:  pods.Addr().Next(),
		Pods:     pods,
		Services: services,
		plugins:  r.tool("cni"),
		config:   filepath.Join(dir, "conf"),
	}
	bridge := filepath.Base(r.Dir) // an interface's name holds 15 bytes
	r.onClose(func() error { return removeNetwork(r.Dir) })
	if err := makeBridge(bridge, r.Dir); err != nil {
		return nil, err
	}
	if err := addAddress(bridge, netip.PrefixFrom(n.Gateway, pods.Bits())); err != nil {
		return nil, err
	}
	if err := addAddress(bridge+":0", netip.PrefixFrom(n.apiAddress(), 32)); err != nil {
		return nil, err
	}
	if err := os.Mkdir(n.config, 0o700); err != nil {
		return nil, err
	}
	content, err := json.Marshal(bridgePlugin(bridge, pods, filepath.Join(dir, "leases")))
	if err != nil {
		return nil, err
	}
	return n, os.WriteFile(filepath.Join(n.config, "10-bridge.conflist"), content, 0o600)
}

// apiAddress is the address of the Service of the API server: the first.
func (n *Network) apiAddress() netip.Addr { return n.Services.Addr().Next() }

// Containerd is the configuration that connects pods, for ContainerdOptions.Extra.
func (n *Network) Containerd() string {
	return fmt.Sprintf(`
[plugins.'io.containerd.cri.v1.runtime']
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['%s']
conf_dir = '%s'
`, n.plugins, n.config)
}

// bridgePlugin is the configuration of the plugins. A gateway of theirs would turn on
// forwarding for the whole machine: the bridge has its address from the harness.
func bridgePlugin(bridge string, pods netip.Prefix, leases string) map[string]any {
	return map[string]any{
		"cniVersion": "1.0.0",
		"name":       "pods",
		"plugins": []any{map[string]any{
			"type":   "bridge",
			"bridge": bridge,
			"ipam": map[string]any{
				"type":    "host-local",
				"dataDir": leases,
				"ranges":  []any{[]any{map[string]any{"subnet": pods.String()}}},
				"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}},
			},
		}},
	}
}

// freeSubnets finds two neighbours of the range for benchmarks (RFC 2544), which no real
// network uses, that no interface of this machine has.
func freeSubnets() (pods, services netip.Prefix, err error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return pods, services, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	used := make(map[netip.Prefix]bool)
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil {
			used[netip.PrefixFrom(prefix.Addr(), 24).Masked()] = true
		}
	}
	for i := range 256 {
		pods = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 0}), 24)
		services = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, byte(i), 0}), 24)
		if !used[pods] && !used[services] {
			return pods, services, nil
		}
	}
	return pods, services, errors.New("198.18.0.0/15 is in use")
}

// makeBridge makes a bridge and writes on it which folder it is of.
func makeBridge(name, dir string) error {
	err := control(func(socket int) error {
		return unix.IoctlSetString(socket, unix.SIOCBRADDBR, padded(name))
	})
	if err != nil {
		return fmt.Errorf("make bridge %s: %w", name, err)
	}
	return os.WriteFile(filepath.Join(interfaces, name, "ifalias"), []byte(dir), 0)
}

// removeBridge removes a bridge, whatever is connected to it, if it is there.
func removeBridge(name string) error {
	if _, err := os.Stat(filepath.Join(interfaces, name)); err != nil {
		return nil
	}
	err := control(func(socket int) error {
		if err := setFlags(socket, name, 0); err != nil { // only one that is down can go
			return err
		}
		return unix.IoctlSetString(socket, unix.SIOCBRDELBR, padded(name))
	})
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("remove bridge %s: %w", name, err)
	}
	return nil
}

// padded is a name as the kernel reads it: 16 bytes.
func padded(name string) string { return name + strings.Repeat("\x00", unix.IFNAMSIZ-len(name)) }

// removeNetwork removes the network of the run in dir, knowing nothing but dir.
func removeNetwork(dir string) error {
	errs := []error{removeBridge(filepath.Base(dir))}
	for file, run := range results() {
		if run == dir {
			errs = append(errs, os.Remove(file))
		}
	}
	return errors.Join(errs...)
}

// removeStaleNetworks removes the networks of runs whose folder is gone.
func removeStaleNetworks() error {
	stale := make(map[string]bool)
	notes, err := filepath.Glob(filepath.Join(interfaces, "hk*", "ifalias"))
	if err != nil {
		return err
	}
	for _, note := range notes {
		dir, err := os.ReadFile(note)
		if err == nil && len(dir) > 0 { // else it is being made or being removed
			stale[strings.TrimSpace(string(dir))] = true
		}
	}
	for _, dir := range results() {
		stale[dir] = true
	}
	var errs []error
	for dir := range stale {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, removeNetwork(dir))
		}
	}
	return errors.Join(errs...)
}

// results are the files of the library about pods of runs, with the folder of the run.
func results() map[string]string {
	files, err := filepath.Glob(filepath.Join(cniResults, "*"))
	if err != nil {
		return nil // the pattern is none
	}
	all := make(map[string]string)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // removed just now
		}
		var result struct{ NetNS string }
		if err := json.Unmarshal(content, &result); err != nil {
			continue // not the library's
		}
		if name, _, found := strings.Cut(strings.TrimPrefix(result.NetNS, baseDir()+"/"), "/"); found && strings.HasPrefix(name, "hk") {
			all[file] = filepath.Join(baseDir(), name)
		}
	}
	return all
}

// addAddress gives an interface, or with ":0" after its name a further label of it, an
// address, and brings it up.
func addAddress(name string, address netip.Prefix) error {
	err := control(func(socket int) error {
		mask := net.CIDRMask(address.Bits(), 32)
		for _, set := range []struct {
			request uint
			address []byte
		}{{unix.SIOCSIFADDR, address.Addr().AsSlice()}, {unix.SIOCSIFNETMASK, mask}} {
			request, err := unix.NewIfreq(name)
			if err != nil {
				return err
			}
			if err := request.SetInet4Addr(set.address); err != nil {
				return err
			}
			if err := unix.IoctlIfreq(socket, set.request, request); err != nil {
				return err
			}
		}
		return setFlags(socket, name, unix.IFF_UP|unix.IFF_RUNNING)
	})
	if err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, address, err)
	}
	return nil
}

func setFlags(socket int, name string, flags uint16) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(flags)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// control calls do with a socket that takes requests about interfaces (netdevice(7)).
func control(do func(socket int) error) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(socket)
	return do(socket)
}

// forwarder takes connections at one address to another: the part of kube-proxy that is
// needed for pods to reach the API server as a Service.
type forwarder struct {
	listener net.Listener
	to       string
	ended    context.Context
	end      context.CancelFunc
	running  sync.WaitGroup
}

func startForwarder(from, to string) (*forwarder, error) {
	listener, err := net.Listen("tcp", from)
	if err != nil {
		return nil, fmt.Errorf("listen for the API server: %w", err)
	}
	f := &forwarder{listener: listener, to: to}
	f.ended, f.end = context.WithCancel(context.Background())
	f.running.Go(f.accept)
	return f, nil
}

// Close ends the forwarder and its connections.
func (f *forwarder) Close() error {
	f.end()
	err := f.listener.Close()
	f.running.Wait()
	return err
}

func (f *forwarder) accept() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return // closed
		}
		f.running.Go(func() { f.forward(client) })
	}
}

func (f *forwarder) forward(client net.Conn) {
	defer client.Close()
	var dialer net.Dialer
	server, err := dialer.DialContext(f.ended, "tcp", f.to)
	if err != nil {
		return // the client sees a connection that ends, as if the API server had
	}
	defer server.Close()
	// Whichever side ends first, or the forwarder, ends both.
	ctx, cancel := context.WithCancel(f.ended)
	defer cancel()
	context.AfterFunc(ctx, func() { client.Close(); server.Close() })
	f.running.Go(func() {
		defer cancel()
		_, _ = io.Copy(server, client)
	})
	_, _ = io.Copy(client, server)
}
