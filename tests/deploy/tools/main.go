// Command judge says how Argo CD and Flux see objects: `judge SCRIPT` reads them, one a line as JSON, and prints for each
// what the script says of its health, run by the interpreter that Argo CD has, and the status that Flux waits for, found by the
// library that Flux has. It also names the packages whose types are those of Flux's objects, out of which controller-gen
// makes their definitions.
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"

	_ "github.com/fluxcd/helm-controller/api/v2"
	_ "github.com/fluxcd/kustomize-controller/api/v1"
	_ "github.com/fluxcd/source-controller/api/v1"
)

type verdict struct {
	Argo    json.RawMessage `json:"argo"`
	Flux    status.Status   `json:"flux"`
	Message string          `json:"message"`
}

func main() {
	script, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	lines, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var object unstructured.Unstructured
		if err := object.UnmarshalJSON(lines.Bytes()); err != nil {
			log.Fatal(err)
		}
		health, err := argo(string(script), lines.Bytes())
		if err != nil {
			log.Fatal(err)
		}
		flux, err := status.Compute(&object)
		if err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(verdict{health, flux.Status, flux.Message}); err != nil {
			log.Fatal(err)
		}
	}
}

// argo runs the script with the object in the global `obj` and the libraries that Argo CD opens, but for the clock.
func argo(script string, object []byte) ([]byte, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, open := range []lua.LGFunction{lua.OpenPackage, lua.OpenBase, lua.OpenTable} {
		state.Push(state.NewFunction(open))
		state.Call(0, 0)
	}
	var value any
	if err := json.Unmarshal(object, &value); err != nil {
		return nil, err
	}
	state.SetGlobal("obj", luajson.DecodeValue(state, value))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	return luajson.Encode(state.Get(-1))
}
