// Command horkos-node is the daemon that gates a node: containerd asks it before it
// creates a container.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/horkos/horkos/node"
	"github.com/horkos/horkos/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "horkos-node:", err)
		os.Exit(2)
	}
}

func command() *cobra.Command {
	flags := node.Defaults()
	var file string
	var printConfig bool
	cmd := &cobra.Command{
		Use:   "horkos-node",
		Short: "Gate a node: refuse containers whose images nobody trusted has attested",
		Long: `horkos-node is the gate of one node. It registers with containerd's NRI as the plugin
99-horkos and is asked before each container is created. It ties the container to the
digest that will really run, holds it against the policies of the pod's namespace, and
refuses what is not attested: also for static pods, and with no API server and no network.

It runs as root on the host, before the kubelet. containerd must be told to create nothing
while it is away: see docs/running-on-a-node.md.`,
		Example: `  # enforce: images that no policy speaks of are refused
  horkos-node --policy-dir /etc/horkos/policies --floor /etc/horkos/floor --default-action deny

  # try it first: decide and record, refuse nothing
  horkos-node --policy-dir /etc/horkos/policies --enforcement audit`,
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := configure(cmd.Flags(), flags, file)
			if err != nil {
				return err
			}
			if printConfig {
				text, err := config.YAML()
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			log, err := logger(config)
			if err != nil {
				return err
			}
			klog.SetSlogLogger(log) // what the client of the API server says goes there, too
			return node.Run(cmd.Context(), config, version.String(), log)
		},
	}
	bind(cmd.Flags(), &flags)
	cmd.Flags().StringVar(&file, "config", "", "read the configuration from `FILE` (YAML, these flags in lowerCamelCase); flags win over it")
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "print the configuration in effect and exit")
	return cmd
}

func bind(f *pflag.FlagSet, c *node.Config) {
	f.StringVar(&c.PolicyDir, "policy-dir", c.PolicyDir, "the `FOLDER` of policies and attestations; it belongs to root")
	f.StringVar(&c.StateDir, "state-dir", c.StateDir, "the `FOLDER` for what must last over a restart; made if it is not there")
	f.StringVar(&c.Kubeconfig, "kubeconfig", c.Kubeconfig, "follow the policies of the cluster that `FILE` tells of, the kubelet's: it belongs to root; empty: only the folder's")
	f.BoolVar(&c.InCluster, "in-cluster", c.InCluster, "follow the policies of the cluster that this pod runs in, by its service account")
	f.StringVar(&c.NodeName, "node-name", c.NodeName, "the `NAME` of this node in the cluster (default: the host's name)")
	f.StringVar(&c.MaximumPolicyAge, "maximum-policy-age", c.MaximumPolicyAge, "how long policies of the cluster are used without hearing of it, as a `DURATION`")
	f.StringVar(&c.NRISocket, "nri-socket", c.NRISocket, "containerd's NRI `SOCKET`")
	f.StringVar(&c.ContainerdAddress, "containerd-address", c.ContainerdAddress, "containerd's gRPC `SOCKET`")
	f.StringVar(&c.ContainerdNamespace, "containerd-namespace", c.ContainerdNamespace, "containerd's `NAMESPACE` of Kubernetes")
	f.StringVar(&c.Floor, "floor", c.Floor, "a `FILE` of digests that start whatever policies say, the pause image's among them; needed to enforce")
	f.StringVar(&c.DefaultAction, "default-action", c.DefaultAction, "`allow|deny` images that no policy speaks of; must be given to enforce")
	f.StringVar(&c.Enforcement, "enforcement", c.Enforcement, "`enforce|audit`: refuse, or only record")
	f.IntVar(&c.MaxSpecBytes, "max-spec-bytes", c.MaxSpecBytes, "refuse a container or pod that takes more `BYTES` to tell a plugin of")
	f.IntVar(&c.MaxSyncBytes, "max-sync-bytes", c.MaxSyncBytes, "let a namespace bring all that runs over these `BYTES` only while it holds a third or less of them")
	f.StringVar(&c.AuditLog, "audit-log", c.AuditLog, "append every decision to `FILE` (default: audit.log in the state folder)")
	f.IntVar(&c.AuditMaxBytes, "audit-max-bytes", c.AuditMaxBytes, "begin a new file of the audit log after so many `BYTES`")
	f.IntVar(&c.AuditMaxFiles, "audit-max-files", c.AuditMaxFiles, "keep so `MANY` older files of the audit log")
	f.StringVar(&c.AuditFailure, "audit-failure", c.AuditFailure, "`deny-allowed|allow` what would be allowed and cannot be recorded")
	f.StringVar(&c.HealthAddress, "health-address", c.HealthAddress, "serve /healthz, /readyz and /metrics on `HOST:PORT` or a unix socket; empty: do not")
	f.StringVar(&c.LogFormat, "log-format", c.LogFormat, "`text|json`")
	f.StringVar(&c.LogLevel, "log-level", c.LogLevel, "`debug|info|warn|error`")
}

// configure lays the flags that were given over the file, and the file over the defaults.
func configure(given *pflag.FlagSet, flags node.Config, file string) (node.Config, error) {
	config := flags
	if file != "" {
		config = node.Defaults()
		if err := config.Load(file); err != nil {
			return config, err
		}
		over := pflag.NewFlagSet("", pflag.ContinueOnError)
		bind(over, &config)
		var failed error
		given.Visit(func(f *pflag.Flag) {
			if over.Lookup(f.Name) == nil {
				return
			}
			if err := over.Set(f.Name, f.Value.String()); err != nil && failed == nil {
				failed = err
			}
		})
		if failed != nil {
			return config, failed
		}
	}
	return config, config.Complete()
}

func logger(config node.Config) (*slog.Logger, error) {
	level, err := config.Level()
	if err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	if config.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
}
