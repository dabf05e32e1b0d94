// SPDX-License-Identifier: Apache-2.0

package flow

import "fmt"

// Task is a question about a flow. Every flow has one verdict for each task.
type Task uint8

// The tasks. In a model, the output for a task has the task's name.
const (
	Category Task = iota // what kind of traffic it is
	App                  // which application sends it

	NumTasks = 2
)

// Tasks lists all tasks.
var Tasks = [NumTasks]Task{Category, App}

var taskNames = [NumTasks]string{"category", "app"}

// String returns "category" or "app".
func (t Task) String() string {
	if int(t) < len(taskNames) {
		return taskNames[t]
	}
	return fmt.Sprintf("task-%d", uint8(t))
}

// ParseTask returns the task with the given name, or an error if there is none.
func ParseTask(name string) (Task, error) {
	for t, known := range taskNames {
		if name == known {
			return Task(t), nil
		}
	}
	return 0, fmt.Errorf("task %q: want category or app", name)
}

// Labels returns the shipped labels of the task.
func (t Task) Labels() []string {
	if t == App {
		return Apps
	}
	return Categories
}

// MarshalText writes the name, so that JSON has names as values and as keys.
func (t Task) MarshalText() ([]byte, error) {
	if int(t) >= len(taskNames) {
		return nil, fmt.Errorf("task %d does not exist", uint8(t))
	}
	return []byte(taskNames[t]), nil
}

// UnmarshalText reads the name.
func (t *Task) UnmarshalText(text []byte) (err error) {
	*t, err = ParseTask(string(text))
	return err
}
