// Command etcd is etcd's server: its own package of that name is in the folder of a
// major version, and go would name the program after that.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
