// The programs of the cases that Go is raced in: strands-bench becomes this one for them.
//
//	strands-bench-go CASE WORKERS COUNT BUDGET_MS
//
// It prints one line of figures, as the others do. What a case is stands in src/cases/, beside
// the programs of the other peers.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type plan struct {
	name    string
	workers int
	count   int
	budget  time.Duration
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: strands-bench-go CASE WORKERS COUNT BUDGET_MS")
		os.Exit(2)
	}
	number := func(text string) int {
		value, err := strconv.Atoi(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		return value
	}
	p := plan{
		name:    os.Args[1],
		workers: number(os.Args[2]),
		count:   number(os.Args[3]),
		budget:  time.Duration(number(os.Args[4])) * time.Millisecond,
	}
	runtime.GOMAXPROCS(p.workers)
	programs := map[string]func(plan){
		"yield":      yielding,
		"spawn-join": spawnJoin,
		"ping-pong":  pingPong,
		"mutex":      mutex,
		"rwlock":     rwlock,
		"condvar":    condvar,
		"semaphore":  semaphore,
		"channel":    channel,
		"mpmc":       channel,
		"oneshot":    oneshot,
		"select":     selecting,
		"scope":      scope,
		"cancel":     cancel,
		"timeout":    timeout,
	}
	program := programs[p.name]
	if program == nil {
		fmt.Fprintln(os.Stderr, "no such case:", p.name)
		os.Exit(2)
	}
	program(p)
}

// ---- Measuring ----

func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

type stopwatch struct {
	wall time.Time
	cpu  time.Duration
}

func start() stopwatch { return stopwatch{time.Now(), cpu()} }

func (w stopwatch) print(p plan, ops uint64, more string) {
	if ops == 0 {
		ops = 1
	}
	wall := float64(time.Since(w.wall)) / float64(ops)
	cpu := float64(cpu()-w.cpu) / float64(ops)
	fmt.Printf("case=%s peer=go wall=%.4f cpu=%.4f ops=%d%s\n", p.name, wall, cpu, ops, more)
}

// meter counts operations for as long as the budget lasts, after a tenth of it as warm-up.
func meter(p plan, chunk func() uint64) {
	for end := time.Now().Add(p.budget / 10); time.Now().Before(end); {
		chunk()
	}
	var ops uint64
	watch := start()
	for end := time.Now().Add(p.budget); time.Now().Before(end); {
		ops += chunk()
	}
	watch.print(p, ops, "")
}

// Two lines of memory for each party's count.
type count struct {
	done atomic.Uint64
	_    [120]byte
}

func (c *count) add(ops uint64) { c.done.Store(c.done.Load() + ops) }

// contest starts the parties, which never end, and measures what they do together.
func contest(p plan, parties int, party func(party int, done *count)) {
	counts := make([]count, parties)
	for i := range counts {
		go party(i, &counts[i])
	}
	look := func() []uint64 {
		seen := make([]uint64, parties)
		for i := range counts {
			seen[i] = counts[i].done.Load()
		}
		return seen
	}
	time.Sleep(p.budget / 5)
	before := look()
	watch := start()
	time.Sleep(p.budget)
	after := look()
	var ops, most uint64
	least := ^uint64(0)
	for i := range after {
		done := after[i] - before[i]
		ops += done
		if after[i] > 0 {
			least, most = min(least, done), max(most, done)
		}
	}
	watch.print(p, ops, fmt.Sprintf(" uneven=%.4f", float64(most)/float64(max(least, 1))))
}

// ---- The cases ----

func yielding(p plan) {
	const yields = 5_000_000
	total := yields
	if p.budget < 500*time.Millisecond {
		total /= 10
	}
	each := max(total/p.count, 20)
	var begun atomic.Int64
	var watch stopwatch
	var all sync.WaitGroup
	for i := 0; i < p.count; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			if begun.Add(1) == int64(p.count) {
				watch = start()
			}
			for begun.Load() < int64(p.count) {
				runtime.Gosched()
			}
			for i := 0; i < each; i++ {
				runtime.Gosched()
			}
		}()
	}
	all.Wait()
	watch.print(p, uint64(p.count)*uint64(each), "")
}

func spawnJoin(p plan) {
	spawn := func(i int) chan int {
		result := make(chan int, 1)
		go func() { result <- i }()
		return result
	}
	meter(p, func() uint64 {
		if p.count == 1 {
			for i := 0; i < 100; i++ {
				if <-spawn(i) != i {
					panic("not its result")
				}
			}
			return 100
		}
		children := make([]chan int, p.count)
		for i := range children {
			children[i] = spawn(i)
		}
		for i, child := range children {
			if <-child != i {
				panic("not its result")
			}
		}
		return uint64(p.count)
	})
}

func scope(p plan) {
	var ended atomic.Uint64
	meter(p, func() uint64 {
		var children sync.WaitGroup
		for i := 0; i < p.count; i++ {
			children.Add(1)
			go func() {
				defer children.Done()
				ended.Add(1)
			}()
		}
		children.Wait()
		return uint64(p.count)
	})
}

func cancel(p plan) {
	if p.budget < 500*time.Millisecond {
		p.count /= 10 // A quick run.
	}
	var waiting atomic.Int64
	var children sync.WaitGroup
	ctx, end := context.WithCancel(context.Background())
	for i := 0; i < p.count; i++ {
		children.Add(1)
		go func() {
			defer children.Done()
			waiting.Add(1)
			defer waiting.Add(-1)
			<-ctx.Done()
		}()
	}
	for waiting.Load() < int64(p.count) {
		runtime.Gosched()
	}
	watch := start()
	end()
	children.Wait()
	watch.print(p, uint64(p.count), "")
}

// With a count of 0 what is limited returns at once.
func timeout(p plan) {
	ask, tell := make(chan int, 1), make(chan int, 1)
	go func() {
		for number := range ask {
			tell <- number
		}
	}()
	meter(p, func() uint64 {
		for i := 0; i < 100; i++ {
			ctx, end := context.WithTimeout(context.Background(), time.Hour)
			if p.count > 0 {
				ask <- i
				select {
				case answer := <-tell:
					if answer != i {
						panic("not the answer")
					}
				case <-ctx.Done():
					panic("an hour has passed")
				}
			}
			end()
		}
		return 100
	})
}

// Go has no unbounded channels; these have room for more than are ever under way.
func pingPong(p plan) {
	ping, pong := make(chan int, 100), make(chan int, 100)
	go func() {
		for number := range ping {
			pong <- number
		}
	}()
	meter(p, func() uint64 {
		for i := 0; i < 100; i++ {
			ping <- i
			if <-pong != i {
				panic("not the answer")
			}
		}
		return 100
	})
}

func mutex(p plan) {
	var lock sync.Mutex
	var number uint64
	contest(p, p.count, func(_ int, done *count) {
		for {
			lock.Lock()
			number++
			lock.Unlock()
			done.add(1)
		}
	})
}

var sink atomic.Uint64

func rwlock(p plan) {
	var lock sync.RWMutex
	var number uint64
	contest(p, p.count, func(_ int, done *count) {
		var sum uint64
		for turn := 0; ; turn++ {
			if turn%20 == 0 {
				lock.Lock()
				number++
				lock.Unlock()
				sink.Store(sum)
			} else {
				lock.RLock()
				sum += number
				lock.RUnlock()
			}
			done.add(1)
		}
	})
}

func condvar(p plan) {
	var lock sync.Mutex
	next, allWait := sync.NewCond(&lock), sync.NewCond(&lock)
	generation, waiting := 0, 0
	contest(p, p.count+1, func(party int, done *count) {
		lock.Lock()
		for {
			if party == p.count {
				for waiting < p.count {
					allWait.Wait()
				}
				waiting = 0
				generation++
				next.Broadcast()
				done.add(uint64(p.count))
			} else {
				mine := generation
				waiting++
				if waiting == p.count {
					allWait.Signal()
				}
				for generation == mine {
					next.Wait()
				}
			}
		}
	})
}

func semaphore(p plan) {
	permits := make(chan struct{}, 4)
	contest(p, p.count, func(_ int, done *count) {
		for {
			permits <- struct{}{}
			runtime.Gosched()
			<-permits
			done.add(1)
		}
	})
}

func channel(p plan) {
	senders := p.count - 1
	if p.count == 8 {
		senders = 4
	}
	messages := make(chan uint64, 100)
	contest(p, p.count, func(party int, done *count) {
		if party < senders {
			for number := uint64(0); ; number++ {
				messages <- number
			}
		}
		for {
			<-messages
			done.add(1)
		}
	})
}

func selecting(p plan) {
	var channels [8]chan uint64
	for i := range channels {
		channels[i] = make(chan uint64, 100)
	}
	contest(p, p.count, func(party int, done *count) {
		if party < len(channels) {
			for number := uint64(0); ; number++ {
				channels[party] <- number
			}
		}
		for {
			select {
			case <-channels[0]:
			case <-channels[1]:
			case <-channels[2]:
			case <-channels[3]:
			case <-channels[4]:
			case <-channels[5]:
			case <-channels[6]:
			case <-channels[7]:
			}
			done.add(1)
		}
	})
}

func oneshot(p plan) {
	requests := make(chan chan uint64, 100)
	contest(p, 2, func(party int, done *count) {
		if party == 0 {
			for number := uint64(0); ; number++ {
				answer := <-requests
				answer <- number
			}
		}
		for {
			answer := make(chan uint64, 1)
			requests <- answer
			<-answer
			done.add(1)
		}
	})
}
