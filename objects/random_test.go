package objects

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Nobody ever deletes p by itself: whatever else happens, it stays in force. c stays there.
func TestWhateverBecomesOfItsKindAPolicyThatNobodyDeletedStays(t *testing.T) {
	bad := 0
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t)
		w.put(enforcing, capEnf)
		w.list()
		w.after(3 * time.Second)
		g := resourceOf(gap)
		p := key{"prod", "p"}
		uid, there, following := 0, true, true
		var log []string
		for range 25 {
			op := rnd.IntN(12)
			switch op {
			case 0: // the definition goes, told or not
				if d := w.defined[g.name()]; d.uid != "" && !d.going {
					d.going = true
					w.defined[g.name()] = d
					if following && rnd.IntN(2) == 0 {
						w.definitions().changed(definedAs(g.name(), d))
					}
				}
			case 1: // its objects go
				if w.defined[g.name()].going && there {
					o := w.objects[g.name()][p]
					delete(w.objects[g.name()], p)
					w.version++
					there = false
					if following {
						w.mirror(g).removed(o)
					}
				}
			case 2: // it is gone
				if w.defined[g.name()].going && !there {
					delete(w.defined, g.name())
					w.served[g.name()] = false
					w.version++
					if following {
						if rnd.IntN(3) > 0 {
							w.definitions().removed(definedAs(g.name(), definition{}))
						}
						w.mirror(g).failed(errGone)
					}
				}
			case 3: // it is back
				if w.defined[g.name()].uid == "" {
					uid++
					w.defined[g.name()] = definition{uid: fmt.Sprint("new", uid)}
					w.served[g.name()] = true
					if following {
						w.definitions().changed(definedAs(g.name(), w.defined[g.name()]))
					}
				}
			case 4: // applied anew
				if d := w.defined[g.name()]; d.uid != "" && !d.going && !there {
					w.version++
					there = true
					w.put(enforcing)
				}
			case 5:
				w.definitions().failed(errors.New("cut"))
				for _, r := range resources() {
					w.mirror(r).failed(errors.New("cut"))
				}
				following = false
			case 6:
				w.start()
				following = false
			case 7, 8: // listed in any order
				w.meet()
				if rnd.IntN(2) == 0 {
					w.listDefinitions()
				}
				rs := resources()
				rnd.Shuffle(len(rs), func(i, j int) { rs[i], rs[j] = rs[j], rs[i] })
				for i, r := range rs {
					w.listOne(r)
					if i == len(rs)/2 && rnd.IntN(2) == 0 {
						w.after(time.Duration(rnd.IntN(4000)) * time.Millisecond)
					}
				}
				w.listDefinitions()
				following = true
			default:
				w.deaf = !following
				w.after([]time.Duration{100 * time.Millisecond, 700 * time.Millisecond, 3 * time.Second, 20 * time.Second, 2 * time.Minute}[rnd.IntN(5)])
			}
			log = append(log, fmt.Sprint(op))
			if _, ok := w.cluster.replica.kind(g.name()).held[p]; !ok && w.cluster.replica.kept {
				bad++
				if bad < 4 {
					t.Errorf("seed %d: p left force after %v; definition %+v", seed, log, w.defined[g.name()])
				}
				break
			}
		}
		// a way out: all is there, all is listed
		w.deaf = false
		if w.defined[g.name()].uid == "" || w.defined[g.name()].going {
			w.defined[g.name()] = definition{uid: "last"}
			w.served[g.name()] = true
			w.objects[g.name()] = map[key]object{}
		}
		w.put(enforcing)
		w.list()
		w.after(5 * time.Second)
		w.after(2 * time.Minute)
		if set := w.after(5 * time.Second); set.Stale != "" || set.Unknown != nil {
			t.Errorf("seed %d: %v; all is there, and: %q %v", seed, log, set.Stale, set.Unknown)
		}
	}
	if bad > 0 {
		t.Errorf("%d of 300 times", bad)
	}
}
