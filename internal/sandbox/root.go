package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// stagings are places over which the new root can be mounted until it becomes
// "/": any directory that exists and that everyone can pass.
var stagings = []string{"/tmp", "/run", "/dev", "/var", "/usr", "/proc"}

// privateRoot makes a root of a tmpfs that holds the two directories alone, and
// lets go of the old one.
func privateRoot(h handoff) error {
	if err := unix.Sethostname([]byte("cell")); err != nil {
		return fmt.Errorf("sethostname: %w", err)
	}
	// Nothing that is mounted here may travel back to the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Both trees are held before staging hides what may lie below it.
	data, err := tree(h.DataTree, h.DataDir)
	if err != nil {
		return err
	}
	defer unix.Close(data)
	run, err := tree(h.RunTree, h.RunDir)
	if err != nil {
		return err
	}
	defer unix.Close(run)

	staging, err := mountStaging()
	if err != nil {
		return err
	}
	for name, fd := range map[string]int{dataInside: data, runInside: run} {
		if err := attach(fd, staging+name); err != nil {
			return err
		}
	}
	if cgoBuild {
		if err := mountProc(staging + "/proc"); err != nil {
			return err
		}
	}
	old := staging + "/old"
	if err := os.Mkdir(old, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(staging, old); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("chdir: %w", err)
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	if err := os.Remove("/old"); err != nil {
		return err
	}
	const readOnly = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", "/", "", readOnly, ""); err != nil {
		return fmt.Errorf("remount root read-only: %w", err)
	}
	return nil
}

// tree returns the detached mount that the supervisor passed, or makes one of path.
func tree(passed int, path string) (int, error) {
	if passed != 0 {
		unix.CloseOnExec(passed)
		return passed, nil
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return 0, fmt.Errorf("open_tree %s: %w", path, err)
	}
	return fd, nil
}

// attach mounts a detached tree at target, nosuid, nodev, noexec and private.
func attach(fd int, target string) error {
	if err := os.Mkdir(target, 0o700); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount to %s: %w", target, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, 0, &attr); err != nil {
		return fmt.Errorf("mount_setattr %s: %w", target, err)
	}
	return nil
}

func mountStaging() (string, error) {
	var last error
	for _, dir := range stagings {
		// 1 MiB and 16 inodes: it holds directories only.
		last = unix.Mount("cell", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m,nr_inodes=16,mode=0755")
		if last == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("mount the root's tmpfs: %w", last)
}

// mountProc mounts a proc of the new pid namespace. Only a build with cgo needs
// it: there libpsx finds the threads of the process in /proc/PID/task.
func mountProc(target string) error {
	if err := os.Mkdir(target, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("proc", target, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "subset=pid,hidepid=2"); err != nil {
		return fmt.Errorf("mount proc (needed by a build with cgo): %w", err)
	}
	return nil
}
