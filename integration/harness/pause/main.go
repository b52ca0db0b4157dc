// Command pause is all that the images of the harness contain. Without arguments it
// sleeps until it is told to end, as a pause container and an ordinary service do.
//
//	pause                  sleep until SIGTERM or SIGINT, then exit 0
//	pause print FILE...    write the files to standard output, exit 0
//	pause exit CODE        exit at once, as an init container does
package main

import (
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		sleep()
		return
	}
	switch os.Args[1] {
	case "print":
		for _, name := range os.Args[2:] {
			if err := printFile(name); err != nil {
				fail(err.Error())
			}
		}
	case "exit":
		if len(os.Args) != 3 {
			fail("exit takes one code")
		}
		code, err := strconv.Atoi(os.Args[2])
		if err != nil {
			fail("the exit code is not a number")
		}
		os.Exit(code)
	default:
		fail("unknown argument " + os.Args[1])
	}
}

func sleep() {
	// The first process of a container has no default action for a signal.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	<-ended
}

func printFile(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(os.Stdout, file)
	return err
}

func fail(message string) {
	os.Stderr.WriteString("pause: " + message + "\n")
	os.Exit(2)
}
