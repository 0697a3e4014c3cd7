package apiserver

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
)

// columns print one kind for `kubectl get`.
type columns struct {
	definitions []metav1.TableColumnDefinition
	cells       func(obj runtime.Object) []any
}

// ConvertToTable implements rest.TableConvertor.
func (c columns) ConvertToTable(_ context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{}
	if o, ok := options.(*metav1.TableOptions); !ok || !o.NoHeaders {
		table.ColumnDefinitions = c.definitions
	}
	row := func(o runtime.Object) error {
		table.Rows = append(table.Rows, metav1.TableRow{Cells: c.cells(o), Object: runtime.RawExtension{Object: o}})
		return nil
	}
	if !meta.IsListType(obj) {
		m, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		table.ResourceVersion = m.GetResourceVersion()
		return table, row(obj)
	}
	if l, err := meta.ListAccessor(obj); err == nil {
		table.ResourceVersion, table.Continue, table.RemainingItemCount = l.GetResourceVersion(), l.GetContinue(), l.GetRemainingItemCount()
	}
	return table, meta.EachListItem(obj, row)
}

func column(name, kind, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: kind, Description: description}
}

var (
	nameColumn = metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: "Name, unique in its namespace."}
	ageColumn  = column("Age", "string", "Time since it was made.")
)

// age prints a time as kubectl does.
func age(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t.Time))
}

var namespaceColumns = columns{
	[]metav1.TableColumnDefinition{nameColumn, column("Status", "string", "Active or Terminating."), ageColumn},
	func(obj runtime.Object) []any {
		n := obj.(*corev1.Namespace)
		phase := n.Status.Phase
		if n.DeletionTimestamp != nil {
			phase = corev1.NamespaceTerminating
		}
		return []any{n.Name, string(phase), age(n.CreationTimestamp)}
	},
}

var secretColumns = columns{
	[]metav1.TableColumnDefinition{nameColumn, column("Type", "string", "What its data is for."), column("Data", "integer", "How many entries it has."), ageColumn},
	func(obj runtime.Object) []any {
		s := obj.(*corev1.Secret)
		return []any{s.Name, string(s.Type), int64(len(s.Data)), age(s.CreationTimestamp)}
	},
}

var configMapColumns = columns{
	[]metav1.TableColumnDefinition{nameColumn, column("Data", "integer", "How many entries it has."), ageColumn},
	func(obj runtime.Object) []any {
		c := obj.(*corev1.ConfigMap)
		return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), age(c.CreationTimestamp)}
	},
}

var leaseColumns = columns{
	[]metav1.TableColumnDefinition{nameColumn, column("Holder", "string", "Who holds it."), ageColumn},
	func(obj runtime.Object) []any {
		l := obj.(*coordinationv1.Lease)
		holder := ""
		if l.Spec.HolderIdentity != nil {
			holder = *l.Spec.HolderIdentity
		}
		return []any{l.Name, holder, age(l.CreationTimestamp)}
	},
}

var eventColumns = columns{
	[]metav1.TableColumnDefinition{
		column("Last Seen", "string", "When it happened last."), column("Type", "string", "Normal or Warning."),
		column("Reason", "string", "Why, in one word."), column("Object", "string", "What it is about."),
		column("Message", "string", "What happened."),
		{Name: "Name", Type: "string", Format: "name", Priority: 1, Description: "Name of the event."},
	},
	func(obj runtime.Object) []any {
		e := obj.(*corev1.Event)
		last := e.LastTimestamp
		switch {
		case e.Series != nil:
			last = metav1.Time{Time: e.Series.LastObservedTime.Time}
		case last.IsZero() && !e.EventTime.IsZero():
			last = metav1.Time{Time: e.EventTime.Time}
		case last.IsZero():
			last = e.CreationTimestamp
		}
		object := fmt.Sprintf("%s/%s", lowerKind(e.InvolvedObject.Kind), e.InvolvedObject.Name)
		return []any{age(last), e.Type, e.Reason, object, e.Message, e.Name}
	},
}

func lowerKind(kind string) string {
	b := []byte(kind)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
