package harness

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// ControlPlaneOptions say what a control plane is made of. The zero value is one that
// pods cannot reach as a Service.
type ControlPlaneOptions struct {
	// Network gives the API server the address that pods know it by.
	Network *Network

	APIServerArgs []string // after the others
}

// ControlPlane is etcd, kube-apiserver, kube-controller-manager and kube-scheduler, with
// a certificate authority of their own. Each can be ended and started like any Service; an
// API server comes back at the same address.
type ControlPlane struct {
	Dir    string // everything of it is in it
	Server string // URL of the API server, on the loopback interface

	Etcd, APIServer, ControllerManager, Scheduler *Service

	Admin           *API   // in the group system:masters, which may do anything
	AdminKubeconfig string // path

	run       *Run
	authority *authority
	data      string // etcd's folder
	snapshots int
}

// StartControlPlane starts a control plane and waits until all of it is healthy, which
// takes some seconds. The run ends it.
func (r *Run) StartControlPlane(ctx context.Context, options ControlPlaneOptions) (*ControlPlane, error) {
	p, err := r.newControlPlane(options)
	if err != nil {
		return nil, fmt.Errorf("prepare a control plane: %w", err)
	}
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

func (r *Run) newControlPlane(options ControlPlaneOptions) (*ControlPlane, error) {
	dir, err := r.folder("p")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	p := &ControlPlane{
		Dir:    dir,
		Server: "https://" + loopback(ports[0]),
		run:    r,
		data:   filepath.Join(dir, "etcd"),
	}
	if p.authority, err = newAuthority("cluster of " + filepath.Base(r.Dir)); err != nil {
		return nil, err
	}
	if err := p.writeKeys(options.Network); err != nil {
		return nil, err
	}
	if p.Admin, err = p.Client("admin", "system:masters"); err != nil {
		return nil, err
	}
	for _, user := range []string{controllerManager, scheduler} {
		if _, err := p.WriteKubeconfig(user, "system:"+user); err != nil {
			return nil, err
		}
	}
	if p.AdminKubeconfig, err = p.WriteKubeconfig("admin", "admin", "system:masters"); err != nil {
		return nil, err
	}
	if options.Network != nil {
		forwarder, err := startForwarder(net.JoinHostPort(options.Network.apiAddress().String(), "443"), loopback(ports[0]))
		if err != nil {
			return nil, err
		}
		r.onClose(forwarder.Close)
	}
	p.newServices(options, ports)
	return p, nil
}

// The programs that are clients of the API server, which are the names of their users too.
const (
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
)

func (p *ControlPlane) file(name string) string { return filepath.Join(p.Dir, name) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// writeKeys writes what the programs read: the authority, the certificate of all servers,
// that of the API server as a client of kubelets, and the key of service accounts' tokens.
func (p *ControlPlane) writeKeys(network *Network) error {
	addresses := []net.IP{net.IPv4(127, 0, 0, 1)}
	if network != nil {
		addresses = append(addresses, network.apiAddress().AsSlice())
	}
	server, err := p.authority.server([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local", "localhost"}, addresses)
	if err != nil {
		return err
	}
	client, err := p.authority.client("kube-apiserver-kubelet-client", "system:masters")
	if err != nil {
		return err
	}
	authorityKey, err := encodeKey(p.authority.key)
	if err != nil {
		return err
	}
	tokens, err := newPrivateKey()
	if err != nil {
		return err
	}
	tokensKey, err := encodeKey(tokens)
	if err != nil {
		return err
	}
	tokensPublic, err := x509.MarshalPKIXPublicKey(tokens.Public())
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt": p.authority.pem, "ca.key": authorityKey,
		"server.crt": server.certificate, "server.key": server.key,
		"client.crt": client.certificate, "client.key": client.key,
		"tokens.key": tokensKey, "tokens.pub": encodePEM("PUBLIC KEY", tokensPublic),
	} {
		if err := os.WriteFile(p.file(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (p *ControlPlane) newServices(options ControlPlaneOptions, ports []int) {
	socket := p.file("etcd.sock")
	etcd := unixClient(socket)
	p.Etcd = p.newService("etcd", func(ctx context.Context) error {
		_, err := get(ctx, etcd, "http://etcd/readyz")
		return err
	},
		"--data-dir="+p.data,
		"--unsafe-no-fsync", // nothing here is to outlive the machine
		"--listen-client-urls=unix://"+socket,
		"--advertise-client-urls=unix://"+socket,
		"--listen-peer-urls=unix://"+p.file("peer.sock"),
		"--initial-advertise-peer-urls=unix://"+p.file("peer.sock"),
		"--initial-cluster=default=unix://"+p.file("peer.sock"),
	)
	p.APIServer = p.newService("kube-apiserver", func(ctx context.Context) error {
		_, err := p.Admin.Raw(ctx, "/readyz")
		return err
	}, p.apiServerFlags(options, socket, ports[0])...)
	common := func(program string, port int) []string {
		return []string{
			"--kubeconfig=" + p.file(program+".kubeconfig"),
			"--bind-address=127.0.0.1",
			"--secure-port=" + strconv.Itoa(port),
			"--tls-cert-file=" + p.file("server.crt"),
			"--tls-private-key-file=" + p.file("server.key"),
			"--leader-elect=false",
		}
	}
	p.ControllerManager = p.newService(controllerManager, p.healthz(ports[1]), append(common(controllerManager, ports[1]),
		"--use-service-account-credentials",
		"--service-account-private-key-file="+p.file("tokens.key"),
		"--root-ca-file="+p.file("ca.crt"),
		"--cluster-signing-cert-file="+p.file("ca.crt"),
		"--cluster-signing-key-file="+p.file("ca.key"),
		"--flex-volume-plugin-dir="+p.file("volume-plugins"), // else it makes one in /usr
	)...)
	p.Scheduler = p.newService(scheduler, p.healthz(ports[2]), common(scheduler, ports[2])...)
}

func (p *ControlPlane) apiServerFlags(options ControlPlaneOptions, etcd string, port int) []string {
	services := "198.19.0.0/24"
	if options.Network != nil {
		services = options.Network.Services.String()
	}
	return slices.Concat([]string{
		"--etcd-servers=unix://" + etcd,
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(port),
		"--cert-dir=" + p.file("certs"),
		"--tls-cert-file=" + p.file("server.crt"),
		"--tls-private-key-file=" + p.file("server.key"),
		"--client-ca-file=" + p.file("ca.crt"),
		"--kubelet-client-certificate=" + p.file("client.crt"),
		"--kubelet-client-key=" + p.file("client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + p.file("tokens.pub"),
		"--service-account-signing-key-file=" + p.file("tokens.key"),
		"--service-cluster-ip-range=" + services,
		// No Endpoints may be of the loopback interface, and nothing here reads them.
		"--endpoint-reconciler-type=none",
		// There is no kube-proxy: it calls webhooks at the pods of their Service.
		"--enable-aggregator-routing=true",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction", // beside the default ones, as kubeadm
		"--allow-privileged=true",
	}, options.APIServerArgs)
}

func (p *ControlPlane) newService(program string, probe func(context.Context) error, flags ...string) *Service {
	argv := append([]string{p.run.tool(program)}, flags...)
	s := &Service{
		name:  filepath.Base(p.Dir) + " (" + program + ")",
		log:   p.file(program + ".log"),
		run:   p.run,
		argv:  func() ([]string, error) { return argv, nil },
		probe: probe,
	}
	p.run.own(s)
	return s
}

// healthz looks whether one of the API server's clients says that it is healthy.
func (p *ControlPlane) healthz(port int) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := get(ctx, p.Admin.client, "https://"+loopback(port)+"/healthz")
		return err
	}
}

// Start starts all four, each when what it needs is there. Those that run go on.
func (p *ControlPlane) Start(ctx context.Context) error {
	for _, s := range p.services() {
		if exited := s.Exited(); exited != nil && !isClosed(exited) {
			continue
		}
		if err := s.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends all four, with SIGTERM.
func (p *ControlPlane) Stop(ctx context.Context) error {
	var errs []error
	for _, s := range slices.Backward(p.services()) {
		errs = append(errs, s.Stop(ctx))
	}
	return errors.Join(errs...)
}

func (p *ControlPlane) services() []*Service {
	return []*Service{p.Etcd, p.APIServer, p.ControllerManager, p.Scheduler}
}

// Snapshot copies etcd's folder as it is now, for Restore, and returns where it is. etcd is
// ended and started for that, and the API server is ready again afterwards.
func (p *ControlPlane) Snapshot(ctx context.Context) (string, error) {
	// Killed it loses nothing it has answered; told to stop it waits 10 s for its clients.
	if err := p.Etcd.Kill(); err != nil {
		return "", err
	}
	p.snapshots++
	snapshot := p.file("snapshot" + strconv.Itoa(p.snapshots))
	if err := os.CopyFS(snapshot, os.DirFS(p.data)); err != nil {
		return "", fmt.Errorf("copy etcd's folder: %w", err)
	}
	if err := p.Etcd.Start(ctx); err != nil {
		return "", err
	}
	return snapshot, p.APIServer.WaitReady(ctx)
}

// Restore brings the control plane back to a snapshot, as an administrator does after a
// disaster: all is stopped, etcd's folder replaced, and all started. What was written since
// is gone, and the resource versions begin again where they were.
func (p *ControlPlane) Restore(ctx context.Context, snapshot string) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(p.data); err != nil {
		return fmt.Errorf("remove etcd's folder: %w", err)
	}
	if err := os.CopyFS(p.data, os.DirFS(snapshot)); err != nil {
		return fmt.Errorf("copy a snapshot: %w", err)
	}
	return p.Start(ctx)
}

// Client is a client of the API server as the user, in the groups.
func (p *ControlPlane) Client(user string, groups ...string) (*API, error) {
	pair, err := p.authority.client(user, groups...)
	if err != nil {
		return nil, err
	}
	return newAPI(p.Server, p.authority.pem, pair)
}

// Kubeconfig is a kubeconfig, in JSON, for the user, in the groups.
func (p *ControlPlane) Kubeconfig(user string, groups ...string) ([]byte, error) {
	pair, err := p.authority.client(user, groups...)
	if err != nil {
		return nil, err
	}
	return p.kubeconfig(map[string]any{"client-certificate-data": pair.certificate, "client-key-data": pair.key})
}

// WriteKubeconfig writes a Kubeconfig as name.kubeconfig into the folder of the control
// plane, and returns its path.
func (p *ControlPlane) WriteKubeconfig(name, user string, groups ...string) (string, error) {
	content, err := p.Kubeconfig(user, groups...)
	if err != nil {
		return "", err
	}
	path := p.file(name + ".kubeconfig")
	return path, writeAtomically(path, content)
}

// NodeKubeconfig writes a kubeconfig for the kubelet of a node into the folder, and returns
// its path. As on a real node it names a file with the certificate and the key, which
// RenewNode replaces.
func (p *ControlPlane) NodeKubeconfig(dir, node string) (string, error) {
	if err := p.RenewNode(dir, node); err != nil {
		return "", err
	}
	identity := filepath.Join(dir, nodeIdentity)
	content, err := p.kubeconfig(map[string]any{"client-certificate": identity, "client-key": identity})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kubeconfig")
	return path, writeAtomically(path, content)
}

// nodeIdentity is the kubelet's name of the file with its certificate.
const nodeIdentity = "kubelet-client-current.pem"

// RenewNode replaces the certificate and the key of a node, in one file, by rename.
func (p *ControlPlane) RenewNode(dir, node string) error {
	pair, err := p.authority.client("system:node:"+node, "system:nodes")
	if err != nil {
		return err
	}
	return writeAtomically(filepath.Join(dir, nodeIdentity), slices.Concat(pair.certificate, pair.key))
}

func (p *ControlPlane) kubeconfig(user map[string]any) ([]byte, error) {
	name := filepath.Base(p.run.Dir)
	content, err := json.MarshalIndent(map[string]any{
		"apiVersion": "v1",
		"kind":       "Config",
		"clusters": []any{map[string]any{"name": name, "cluster": map[string]any{
			"server": p.Server, "certificate-authority-data": p.authority.pem,
		}}},
		"users":           []any{map[string]any{"name": name, "user": user}},
		"contexts":        []any{map[string]any{"name": name, "context": map[string]any{"cluster": name, "user": name}}},
		"current-context": name,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write a kubeconfig: %w", err)
	}
	return content, nil
}
