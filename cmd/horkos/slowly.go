package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// patience is how long something may take without a word.
const patience = 2 * time.Second

// slowly does something and, as long as it takes, says so on standard error, where do must
// not write meanwhile.
func slowly(cmd *cobra.Command, what string, do func() error) error {
	return telling(cmd.ErrOrStderr(), patience, what, do)
}

func telling(w io.Writer, every time.Duration, what string, do func() error) error {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		began := time.Now()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintf(w, "%s ... %d s\n", what, int(time.Since(began).Seconds()))
			}
		}
	}()
	err := do()
	close(done)
	<-ended
	return err
}
