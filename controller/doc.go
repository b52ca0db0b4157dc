// Package controller is what one leader in the cluster does, whatever number of it runs: it
// tells the authors of policies and authorities, by conditions and events, what is wrong with
// them, and removes the NodeGates of nodes that are gone.
//
// No gate reads what it writes. It finds nothing by itself: it decodes and compiles the
// objects as every node does, and tells what that finds.
package controller
