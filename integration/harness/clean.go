package harness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// programs are the only ones that clean ends because of their command line: an
// editor or a pager that has a file of the run open is nobody's leftover.
var programs = []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "runtime", "kubelet", "horkos-node",
	"horkos", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"}

const cleanTimeout = 20 * time.Second

// clean removes the run in dir and all that belongs to it, knowing nothing but dir:
// it serves the program that made the run as well as the one that finds it later.
func clean(dir string) error {
	var errs []error
	errs = append(errs, until(cleanTimeout, func() error { return killProcesses(dir) }))
	errs = append(errs, until(cleanTimeout, func() error { return unmountAll(dir) }))
	errs = append(errs, until(cleanTimeout, func() error { return removeCgroups(filepath.Base(dir)) }))
	errs = append(errs, removeSockets(dir), removeNetwork(dir), undo(dir))
	if err := errors.Join(errs...); err != nil {
		return err // the folder is kept, so that a later run can try again
	}
	return until(cleanTimeout, func() error { return os.RemoveAll(dir) })
}

// sweep cleans up after runs whose program has gone. A run belongs to whoever runs
// us and nobody else may write to it, or it is none.
func sweep() error {
	return eachRun(func(dir string) error {
		lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
		if err != nil {
			return nil // being made or being removed
		}
		defer lock.Close()
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return nil // alive
		}
		return clean(dir)
	})
}

// cleanOwn cleans up the runs of this process.
func cleanOwn() error {
	self := strconv.Itoa(os.Getpid()) + "\n"
	return eachRun(func(dir string) error {
		owner, err := os.ReadFile(filepath.Join(dir, "lock"))
		if err != nil || string(owner) != self {
			return nil
		}
		return clean(dir)
	})
}

func eachRun(do func(dir string) error) error {
	dirs, err := filepath.Glob(filepath.Join(baseDir(), "hk*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
			continue
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
			continue
		}
		if err := do(dir); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// until calls try until it returns nil, or for as long as given.
func until(limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// killProcesses ends what belongs to the run and returns nil when nothing does any more.
func killProcesses(dir string) error {
	ids, err := processes(dir)
	if err != nil || len(ids) == 0 {
		return err
	}
	for _, id := range ids {
		if err := unix.Kill(id, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end process %d: %w", id, err)
		}
	}
	return fmt.Errorf("processes %v do not end", ids)
}

// processes are those in the run's cgroups (its containers), and those of the
// harness's programs with the run's folder in their command line.
func processes(dir string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var ids []int
	for _, entry := range entries {
		id, err := strconv.Atoi(entry.Name())
		if err != nil || id == os.Getpid() {
			continue
		}
		if worksIn(id, dir) || inCgroup(id, filepath.Base(dir)) && !isZombie(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func inCgroup(id int, name string) bool {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", id))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(content)) {
		if strings.Contains(strings.TrimSuffix(line, "\n")+"/", "/"+name+"/") {
			return true
		}
	}
	return false
}

// isZombie says whether the process has ended and only waits for its parent, the
// init of this machine, to notice.
func isZombie(id int) bool {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return true
	}
	state := string(content[bytes.LastIndexByte(content, ')')+1:]) // after the name, which is in parentheses
	return strings.HasPrefix(state, " Z") || strings.HasPrefix(state, " X")
}

func worksIn(id int, dir string) bool {
	executable, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", id))
	if err != nil {
		return false // a kernel thread or a zombie
	}
	if !slices.Contains(programs, filepath.Base(strings.TrimSuffix(executable, " (deleted)"))) {
		return false
	}
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id))
	return err == nil && strings.Contains(string(arguments), dir+"/")
}

// unmountAll unmounts what is mounted in dir, the latest first, and returns nil when
// nothing is any more.
func unmountAll(dir string) error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	var left error
	for _, m := range slices.Backward(mounts) {
		if m.path != dir && !strings.HasPrefix(m.path, dir+"/") {
			continue
		}
		left = fmt.Errorf("%s stays mounted", m.path)
		if err := unix.Unmount(m.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", m.path, err)
		}
	}
	return left
}

type mountPoint struct{ path, kind string }

// readMounts reads the mount table of this process (proc(5), /proc/pid/mountinfo).
func readMounts() ([]mountPoint, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer file.Close()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var mounts []mountPoint
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20) // overlays have long options
	for scanner.Scan() {
		before, after, found := strings.Cut(scanner.Text(), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 5 || len(rest) < 1 {
			continue
		}
		mounts = append(mounts, mountPoint{path: unescape.Replace(fields[4]), kind: rest[0]})
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return mounts, nil
}

var shimSocket = regexp.MustCompile(`/run/containerd/s/[0-9a-f]{64}`)

// removeSockets removes the sockets of shims. containerd before 2.4 keeps them in a
// folder of the machine, and notes the address in its state folder.
func removeSockets(dir string) error {
	notes, err := filepath.Glob(filepath.Join(dir, "*", "state", "io.containerd.runtime.v2.task", "*", "*", "bootstrap.json"))
	if err != nil {
		return err
	}
	for _, note := range notes {
		content, err := os.ReadFile(note)
		if err != nil {
			return fmt.Errorf("read the address of a shim: %w", err)
		}
		if socket := shimSocket.Find(content); socket != nil {
			if err := os.Remove(string(socket)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove the socket of a shim: %w", err)
			}
		}
	}
	return nil
}
