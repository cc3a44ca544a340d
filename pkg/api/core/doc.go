// Package core knows what is true of the kinds of core/v1 wherever they are
// handled: their defaults ([AddDefaults]), the field selectors that they take
// ([AddFieldLabels]), what makes them invalid (the Validate functions) and what
// their users are warned of (the Warnings functions).
//
// Validation answers with the field paths, reasons and messages that users of
// Kubernetes know. Each Validate function expects an object with its defaults
// set; each takes the new object first and the old one, if any, second. Rules are
// independent of each other where they can be, so that one answer names
// everything that is wrong.
package core
