package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// systemdPrograms are what a machine is made of: the packages systemd, util-linux and mount.
var systemdPrograms = []string{"systemctl", "journalctl", "unshare", "nsenter", "pivot_root", "mount", "umount"}

// RequireSystemd is Require for tests that need CheckSystemd.
func RequireSystemd(t testing.TB) {
	t.Helper()
	err := CheckSystemd()
	if err == nil {
		return
	}
	if os.Getenv(envIntegration) == "required" {
		t.Fatalf("%s=required, and systemd cannot run here: %v", envIntegration, err)
	}
	t.Skipf("systemd cannot run here: %v", err)
}

// systemdPath is where Linux distributions have the program that becomes process 1.
const systemdPath = "/usr/lib/systemd/systemd"

// CheckSystemd says whether a [Machine] can run here, beside what [Check] says.
func CheckSystemd() error {
	var missing []error
	for _, name := range systemdPrograms {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, err)
		}
	}
	if _, err := os.Stat(systemdPath); err != nil {
		missing = append(missing, fmt.Errorf("systemd is not installed: %w", err))
	}
	return errors.Join(missing...)
}

// Machine is a real systemd that is process 1 of namespaces of its own: pid, mount,
// cgroup, ipc and uts. The network, /usr and the kernel are those of this machine. Boot
// (Start) waits until systemd answers, not until its units are up; end it with Kill, which
// is a power cut: what is under Root stays, but for /run.
//
// It knows the units of the folder Units and no others: the targets of a boot, the
// journal, and what the caller puts there.
type Machine struct {
	*Service

	Root  string // its root folder
	Units string // its units, /etc/systemd/system

	cgroup string // the folder of its cgroups
	shared []string
	links  map[string]string // below /run, which a boot empties
}

// NewMachine prepares a machine and does not boot it. The shared folders are seen in it
// at the same path as here.
func (r *Run) NewMachine(shared ...string) (*Machine, error) {
	m, err := r.newMachine(shared)
	if err != nil {
		return nil, fmt.Errorf("prepare a machine: %w", err)
	}
	return m, nil
}

func (r *Run) newMachine(shared []string) (*Machine, error) {
	dir, err := r.folder("m")
	if err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "root")
	m := &Machine{Root: root, Units: filepath.Join(root, "etc/systemd/system"), shared: shared, links: make(map[string]string)}
	if err := m.furnish(); err != nil {
		return nil, err
	}
	name := filepath.Base(dir)
	if m.cgroup, err = r.machineCgroup(name); err != nil {
		return nil, err
	}
	m.Service = &Service{
		name:  name + " (systemd)",
		log:   filepath.Join(dir, "systemd.log"),
		run:   r,
		argv:  m.argv,
		probe: func(ctx context.Context) error { _, err := m.Systemctl(ctx, "show", "--property=Version"); return err },
	}
	r.own(m.Service)
	return m, nil
}

// machineCgroup makes the cgroup of a machine, in the version 2 hierarchy, which every
// kernel has, and which is mounted in the run's folder where it is nowhere else.
func (r *Run) machineCgroup(name string) (string, error) {
	mounts, err := readMounts()
	if err != nil {
		return "", err
	}
	hierarchy, mine := "", filepath.Join(r.Dir, "cgroup2")
	for _, m := range mounts {
		if m.kind == "cgroup2" && (hierarchy == "" || m.path == mine) {
			hierarchy = m.path
		}
	}
	if hierarchy == "" {
		if err := os.Mkdir(mine, 0o700); err != nil {
			return "", err
		}
		if err := unix.Mount("cgroup2", mine, "cgroup2", 0, ""); err != nil {
			return "", fmt.Errorf("mount a cgroup hierarchy: %w", err)
		}
		hierarchy = mine
	}
	run := filepath.Base(r.Dir)
	dir := filepath.Join(hierarchy, run, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	r.onClose(func() error {
		// Its processes end with its process 1, a moment later.
		err := until(cleanTimeout, func() error { return removeCgroups(filepath.Join(run, name)) })
		if hierarchy == mine {
			_ = os.Remove(filepath.Join(hierarchy, run)) // the last machine's succeeds
		}
		return err
	})
	return dir, nil
}

// bootUnits are the least that units with default dependencies need.
var bootUnits = map[string]string{
	"sysinit.target":    "[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\nAfter=systemd-journald.service\n",
	"basic.target":      "[Unit]\nDefaultDependencies=no\nRequires=sysinit.target\nAfter=sysinit.target\n",
	"shutdown.target":   "[Unit]\nDefaultDependencies=no\n",
	"multi-user.target": "[Unit]\nRequires=basic.target\nAfter=basic.target\n",
}

// journalUnits are the distribution's own.
var journalUnits = []string{"systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"}

// furnish makes the root folder, which holds nothing of this machine but /usr.
func (m *Machine) furnish() error {
	folders := []string{"usr", "local/bin", "run", "proc", "sys", "dev", "old", "tmp", "root", "home", "var/lib",
		"etc/systemd/system/multi-user.target.wants"}
	for _, shared := range m.shared {
		folders = append(folders, strings.TrimPrefix(shared, "/"))
	}
	for _, name := range folders {
		if err := os.MkdirAll(filepath.Join(m.Root, name), 0o755); err != nil {
			return err
		}
	}
	links := map[string]string{"var/run": "/run", "bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
	files := map[string]string{
		"etc/machine-id": strings.Repeat("68", 16) + "\n",
		"etc/passwd":     "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
		"etc/group":      "root:x:0:\nnogroup:x:65534:\n",
	}
	for name, text := range bootUnits {
		files["etc/systemd/system/"+name] = text
	}
	for _, name := range journalUnits {
		links["etc/systemd/system/"+name] = "/usr/lib/systemd/system/" + name
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(m.Root, name)); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(m.Root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// enter becomes process 1, in the machine's cgroup, whose root it will be.
const enter = `
exec unshare --pid --fork --kill-child --mount --propagation private --ipc --uts sh -euc '
echo 0 >"$1/cgroup.procs"
shift
exec unshare --cgroup sh -euc "$@"
' sh "$@"
`

// boot makes the root folder the root, and becomes systemd. What systemd would change for
// all of this machine's kernel it may not write: /proc/sys, /sys. In a container, as it is told
// that it is in, it does not want to.
const boot = `
root=$1
shift
mount --bind "$root" "$root"
cd "$root"
mount --bind /usr usr
mount -o remount,bind,ro usr
mount --bind local usr/local
mount --bind run run
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
ln -s pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do
	: >"dev/$device"
	mount --bind "/dev/$device" "dev/$device"
done
for shared in "$@"; do
	mount --bind "$shared" ".$shared"
done
pivot_root . old
umount -l /old
exec env -i container=horkos PATH=/usr/local/bin:/usr/bin:/usr/sbin SYSTEMD_UNIT_PATH=/etc/systemd/system \
	` + systemdPath + ` --system --unit=multi-user.target --log-target=journal --show-status=no
`

// argv boots the machine, with an empty /run.
func (m *Machine) argv() ([]string, error) {
	run := filepath.Join(m.Root, "run")
	if err := os.RemoveAll(run); err != nil {
		return nil, err
	}
	if err := os.Mkdir(run, 0o755); err != nil {
		return nil, err
	}
	for name, target := range m.links {
		if err := os.Symlink(target, filepath.Join(run, name)); err != nil {
			return nil, err
		}
	}
	return append([]string{"sh", "-euc", enter, "sh", m.cgroup, boot, "sh", m.Root}, m.shared...), nil
}

// Systemctl runs systemctl in the machine and returns its standard output.
func (m *Machine) Systemctl(ctx context.Context, arguments ...string) (string, error) {
	return m.Exec(ctx, append([]string{"systemctl", "--no-pager"}, arguments...)...)
}

// Journal is what a unit wrote to its standard error, and what systemd says of it.
func (m *Machine) Journal(ctx context.Context, unit string) (string, error) {
	return m.Exec(ctx, "journalctl", "--no-pager", "--output=cat", "--unit="+unit)
}

// Show returns properties of a unit, by name: ActiveState, StatusText, NRestarts.
func (m *Machine) Show(ctx context.Context, unit string, properties ...string) (map[string]string, error) {
	text, err := m.Systemctl(ctx, "show", "--property="+strings.Join(properties, ","), unit)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			values[name] = value
		}
	}
	return values, nil
}

// Exec runs a program in the machine, as root, and returns its standard output.
func (m *Machine) Exec(ctx context.Context, command ...string) (string, error) {
	ids, err := m.processes("init.scope")
	if err != nil {
		return "", fmt.Errorf("%s: find systemd: %w", command[0], err)
	}
	arguments := append([]string{"--target=" + strconv.Itoa(ids[0]), "--mount", "--pid", "--ipc", "--uts", "--"}, command...)
	cmd := exec.CommandContext(ctx, "nsenter", arguments...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// ServicePID is the process of a service, as this machine counts, and an error if it has none.
func (m *Machine) ServicePID(unit string) (int, error) {
	ids, err := m.processes(filepath.Join("system.slice", unit))
	if err != nil {
		return 0, fmt.Errorf("find the process of %s: %w", unit, err)
	}
	return ids[0], nil
}

// SignalService sends a signal to the process of a service, behind systemd's back.
func (m *Machine) SignalService(unit string, signal syscall.Signal) error {
	id, err := m.ServicePID(unit)
	if err != nil {
		return err
	}
	if err := unix.Kill(id, signal); err != nil {
		return fmt.Errorf("signal %s: %w", unit, err)
	}
	return nil
}

// processes are those in a cgroup of the machine, one at least.
func (m *Machine) processes(cgroup string) ([]int, error) {
	content, err := os.ReadFile(filepath.Join(m.cgroup, cgroup, "cgroup.procs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []int
	for field := range strings.FieldsSeq(string(content)) {
		id, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("no process is in %s", cgroup)
	}
	return ids, nil
}
