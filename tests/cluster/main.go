// Command cluster is the parts of a Kubernetes cluster in one program: upstream keeps each as a library with its
// command exported. The name that it is started under, a link to it, says which one to be.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// parts are the programs that this one can be; each reads its arguments from os.Args.
var parts = map[string]func(){
	"etcd":           func() { etcdmain.Main(os.Args) },
	"kube-apiserver": func() { os.Exit(cli.Run(apiserver.NewAPIServerCommand())) },
	"kubectl":        func() { os.Exit(cli.Run(kubectl.NewDefaultKubectlCommand())) },
}

func main() {
	name := filepath.Base(os.Args[0])
	run, ok := parts[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "%s: no such part of this program; start it by a link of the name of one, such as kubectl\n", name)
		os.Exit(2)
	}
	run()
}
