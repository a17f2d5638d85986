//go:build node

// What a node has beside the control plane: only in the program of `make cluster-node`, as it takes minutes more to build.
package main

import (
	"context"
	"os"

	"k8s.io/component-base/cli"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func init() {
	parts["kube-controller-manager"] = func() { os.Exit(cli.Run(manager.NewControllerManagerCommand())) }
	parts["kube-scheduler"] = func() { os.Exit(cli.Run(scheduler.NewSchedulerCommand())) }
	parts["kube-proxy"] = func() { os.Exit(cli.Run(proxy.NewProxyCommand())) }
	parts["kubelet"] = func() { os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background()))) }
}
